"""The fields of a request, read once: by name, and less the claims of a peer that is not believed.

Used for every request. Clients say the same again and again, so whole sections are remembered; what a section means
depends on nothing but itself. Knows no peer and no policy: whoever calls says what may be believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

from ...core.http.hop_by_hop import hop_by_hop_among
from ...core.http.secret_fields import may_be_secret
from ...net.bounded_cache import BoundedCache
from .client_deadline import client_timeout
from .content_negotiation import may_ask_for_stream

Field = tuple[bytes, bytes]

_CLAIMS = frozenset({b"forwarded", b"x-real-ip", b"remote-addr"})
# A host that every reader takes for the same: labels of at most 63 letters, digits and hyphens, and a port.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*(?::[1-9][0-9]{0,4})?", re.ASCII)

_KNOWN_MAX, _KNOWN_SIZE = 256, 1024
"""Sections that are remembered, and the bytes of the largest."""
_known: BoundedCache[tuple[bool, tuple[Field, ...]], RequestFields] = BoundedCache(
    _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda key: sum(map(len, chain(*key[1])))
)


class RequestFields:
    """One section of fields. Shared by all requests that say the same, so nobody may change it."""

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
        """As they came, less what does not count."""
        by_name: dict[str, str] = {}
        for raw_name, raw_value in kept:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name in by_name:
                value = f"{by_name[name]}{'; ' if name == 'cookie' else ', '}{value}"
            by_name[name] = value
        self.by_name: Mapping[str, str] = MappingProxyType(by_name)
        """Values by lower-case name; repeated ones joined as RFC 9110 section 5.3 says (Cookie: RFC 9113 8.2.3)."""
        self.get = by_name.get
        """A value, or None."""
        self.end_to_end: Mapping[str, str] = self.by_name
        """``by_name`` without what belongs to this connection: all of the request's fields that a call may use."""
        if own := frozenset(hop_by_hop_among(by_name, by_name.get("connection"))):
            self.end_to_end = MappingProxyType({name: by_name[name] for name in by_name if name not in own})
        self.has_plain_host = _PLAIN_HOST.fullmatch(by_name.get("host", "")) is not None
        """Whether it names a host, and one that nobody could refuse."""
        self.content_type = self.end_to_end.get("content-type", "")
        self.via = self.end_to_end.get("via", "")
        self.client_timeout = client_timeout(by_name)
        """The seconds that the client is ready to wait; None if it does not say."""
        self.names_stream = may_ask_for_stream(by_name.get("accept"))
        """Whether the answer may have to be a stream (``accept.stream_form``)."""
        self.names_trace = "traceparent" in self.end_to_end or "tracestate" in self.end_to_end
        """Whether they bring a trace, or a part of one."""
        self._cookies: Mapping[str, str] | None = None

    @property
    def announces_body(self) -> bool:
        """Whether they speak of a body that is not empty. (HTTP/2 may send one without a word of it.)"""
        return self.get("content-length", "0") != "0" or "transfer-encoding" in self.by_name

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies of the client that may go on, by name, each value as it stands; of several of one name the first.

        Quart's reading undoes the escapes of a quoted value. There ``\\073`` becomes a semicolon, so that one cookie
        that a plan names would go upstream as two.
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
    """The fields of a request; what its peer claims of others (``X-Forwarded-*`` and the like) only if ``believed``."""
    key = (believed, tuple(headers))
    try:
        return _known.entries[key]
    except KeyError:
        pass
    except TypeError:  # Some servers make their pairs as lists.
        key = (believed, tuple((name, value) for name, value in key[1]))
        if (known := _known.get(key)) is not None:
            return known
    section = key[1]
    fields = RequestFields([field for field in section if believed or not _is_claim(field[0])])
    # First whether it is small: then its names are.
    if _known.takes(key) and not any(_is_secret(name) for name, _ in section):
        _known.add(key, fields)
    return fields


def _is_claim(raw_name: bytes) -> bool:
    name = raw_name.lower()
    return name in _CLAIMS or name.startswith(b"x-forwarded-")


@lru_cache(maxsize=256)
def _is_secret(name: bytes) -> bool:
    return may_be_secret(name.lower())
