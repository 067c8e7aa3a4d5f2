"""Header fields of a request by name, without the claims of a peer that is not believed.

The fields of a request head are its *section*. Clients repeat their sections, so parsed sections are cached; the result
depends only on the section and on whether the peer is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

from ...core.http.hop_by_hop import hop_by_hop_among
from ...core.http.host import is_host
from ...core.http.secret_fields import may_be_secret
from ...net.bounded_cache import BoundedCache
from .client_deadline import client_timeout
from .content_negotiation import may_ask_for_stream

Field = tuple[bytes, bytes]

_CLAIMS = frozenset({b"forwarded", b"x-real-ip", b"remote-addr"})
# An unambiguous host: labels of at most 63 letters, digits and hyphens, and optionally a port.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*(?::[1-9][0-9]{0,4})?", re.ASCII)

_KNOWN_MAX, _KNOWN_SIZE = 256, 1024
"""Maximum number of cached sections, and maximum bytes of a cached section."""
_known: BoundedCache[tuple[bool, tuple[Field, ...]], RequestFields] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda key: sum(map(len, chain(*key[1])))
)


class RequestFields:
    """Parsed fields of a request head. Shared by all requests with equal fields, so it must not be changed."""

    __slots__ = (
        "_cookies",
        "by_name",
        "client_timeout",
        "content_type",
        "end_to_end",
        "get",
        "has_plain_host",
        "kept",
        "names_stream",
        "names_trace",
        "via",
    )

    def __init__(self, kept: list[Field]) -> None:
        self.kept = kept
        """The fields as pairs, in order, without the claims of a peer that is not believed."""
        by_name: dict[str, str] = {}
        for raw_name, raw_value in kept:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name in by_name:
                value = f"{by_name[name]}{'; ' if name == 'cookie' else ', '}{value}"
            by_name[name] = value
        self.by_name: Mapping[str, str] = MappingProxyType(by_name)
        """Values by name in lower case. Repeated fields are joined (RFC 9110 section 5.3; Cookie: RFC 9113 8.2.3)."""
        self.get = by_name.get
        """The value of a name, or None."""
        self.end_to_end: Mapping[str, str] = self.by_name
        """``by_name`` without hop-by-hop fields: all fields that a call may forward."""
        if own := frozenset(hop_by_hop_among(by_name, by_name.get("connection"))):
            self.end_to_end = MappingProxyType({name: by_name[name] for name in by_name if name not in own})
        host = by_name.get("host", "")
        self.has_plain_host = _PLAIN_HOST.fullmatch(host) is not None and is_host(host)
        """Whether Host is present and certainly valid."""
        self.content_type = self.end_to_end.get("content-type", "")
        self.via = self.end_to_end.get("via", "")
        self.client_timeout = client_timeout(by_name)
        """The timeout in seconds that the client asks for; None if it asks for none."""
        self.names_stream = may_ask_for_stream(by_name.get("accept"))
        """Whether Accept may name a stream (``content_negotiation.stream_form``)."""
        self.names_trace = "traceparent" in self.end_to_end or "tracestate" in self.end_to_end
        """Whether a field of the trace context is present."""
        self._cookies: Mapping[str, str] | None = None

    @property
    def announces_body(self) -> bool:
        """Whether the fields announce a body that is not empty. (HTTP/2 may send a body without these fields.)"""
        return self.get("content-length", "0") != "0" or "transfer-encoding" in self.by_name

    @property
    def cookies(self) -> Mapping[str, str]:
        """The values of the client's cookies by name, unchanged; of several cookies with one name the first.

        Quart's own parser decodes escapes in quoted values. ``\\073`` would become a semicolon, and a call that
        forwards one cookie would send two.
        """
        if self._cookies is None:
            cookies: dict[str, str] = {}
            for pair in self.end_to_end.get("cookie", "").split(";"):
                name, mark, value = pair.partition("=")
                if mark:
                    cookies.setdefault(name.strip(" \t"), value.strip(" \t"))
            self._cookies = MappingProxyType(cookies)
        return self._cookies


def read_fields(headers: Iterable[Field], *, believed: bool) -> RequestFields:
    """Parse the fields of a request, without ``X-Forwarded-*`` and ``Forwarded`` unless the peer is ``believed``."""
    key = (believed, tuple(headers))
    try:
        return _known.entries[key]
    except KeyError:
        pass
    except TypeError:  # Some servers give lists instead of pairs, which cannot be hashed.
        key = (believed, tuple((name, value) for name, value in key[1]))
        if (known := _known.get(key)) is not None:
            return known
    section = key[1]
    fields = RequestFields([field for field in section if believed or not _is_claim(field[0])])
    # The size is checked first, so that only short names are searched for secrets.
    if _known.takes(key) and not any(_is_secret(name) for name, _ in section):
        _known.add(key, fields)
    return fields


def _is_claim(raw_name: bytes) -> bool:
    name = raw_name.lower()
    return name in _CLAIMS or name.startswith(b"x-forwarded-")


@lru_cache(maxsize=256)
def _is_secret(name: bytes) -> bool:
    return may_be_secret(name.lower())
