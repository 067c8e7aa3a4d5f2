"""Hop-by-hop header fields, which an intermediary must not forward (RFC 9110 section 7.6.1).

These are the fields of the connection itself, fields whose names begin with ``proxy-``, and each field that
``Connection`` names.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...net.bounded_cache import BoundedCache
from .syntax import list_members

HOP_BY_HOP = frozenset(
    {b"connection", b"http2-settings", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Names of the fields of the connection, in lower case. Names that begin with ``proxy-`` are hop-by-hop too."""

_TEXTS = frozenset(name.decode() for name in HOP_BY_HOP)
_PERSISTENCE = frozenset({b"close", b"keep-alive"})
_known: BoundedCache[bytes, frozenset[bytes]] = BoundedCache(256, 128)


def is_hop_by_hop(name: bytes) -> bool:
    """Whether a field of this name (in lower case) is never forwarded: a connection's field, or a ``proxy-`` name.

    Proxy-Status is the one field with such a name that is end-to-end (RFC 9209).
    """
    return name in HOP_BY_HOP or (name.startswith(b"proxy-") and name != b"proxy-status")


def hop_by_hop_among(names: Iterable[str], connection: str | None) -> list[str]:
    """The hop-by-hop names among ``names`` (in lower case), in a message whose ``Connection`` has this value.

    ``connection`` is None if the message has no such field.
    """
    named = {name.decode("latin-1") for name in named_by(connection.encode("latin-1"))} if connection else _TEXTS
    return [name for name in names if name in _TEXTS or name in named or name.startswith("proxy-")]


def named_by(connection: bytes) -> frozenset[bytes]:
    """The names of fields, in lower case, that a value of ``Connection`` makes hop-by-hop.

    The options ``close`` and ``keep-alive`` are not names of fields and are left out.
    """
    named = _known.get(connection)
    if named is None:
        named = frozenset(list_members(connection) - _PERSISTENCE)
        _known.add(connection, named)
    return named
