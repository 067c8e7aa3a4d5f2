"""Names of content codings (RFC 9110 section 8.4.1).

Servers also write other names into Content-Encoding: a charset (``UTF-8``), ``none``, ``binary``, ``8bit``. The body of
such a response is not coded. Umbel ignores these names in responses, as browsers do. In requests it accepts only
``UTF-8`` of them (``gateway/request/request_body.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

GZIP = frozenset({b"gzip", b"x-gzip"})
"""The names of gzip (RFC 9110 section 8.4.1.3)."""

CODINGS = GZIP | frozenset(
    # Names of the IANA registry, and names of compressors that are in use without registration.
    b"aes128gcm br compress dcb dcz deflate exi pack200-gzip zstd"
    b" bzip2 lz4 lzma sdch snappy x-bzip2 x-compress x-deflate x-lzma x-xz xz".split()
)
"""The names of content codings, in lower case."""


def codings_of(values: Iterable[bytes]) -> list[bytes]:
    """The codings in a response's values of Content-Encoding, in lower case, in the order in which they were applied.

    Names that are not in ``CODINGS`` are left out.
    """
    names = (name.strip(b" \t\"'").lower() for value in values for name in value.split(b","))
    return [name for name in names if name in CODINGS]
