"""Content codings (RFC 9110 section 8.4.1): which names of a Content-Encoding say that a body is coded.

Servers also write names there that are none: a charset (``UTF-8``), ``none``, ``binary``, ``8bit``. Browsers take such
a body as it stands, and so does Umbel: a name that is no coding changes nothing of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

GZIP = frozenset({b"gzip", b"x-gzip"})
"""The names of gzip (RFC 9110 section 8.4.1.3: x-gzip is the same)."""

CODINGS = GZIP | frozenset(
    # The names that IANA has registered, and those of compressors that are in use without.
    b"aes128gcm br compress dcb dcz deflate exi pack200-gzip zstd"
    b" bzip2 lz4 lzma sdch snappy x-bzip2 x-compress x-deflate x-lzma x-xz xz".split()
)
"""The names of content codings, in lower case."""


def codings_of(values: Iterable[bytes]) -> list[bytes]:
    """The codings that the values of Content-Encoding name, in lower case, in the order in which they were applied."""
    names = (name.strip(b" \t\"'").lower() for value in values for name in value.split(b","))
    return [name for name in names if name in CODINGS]
