"""TLS session cache: the next connection to the same origin needs no full handshake (RFC 8446 section 2.2).

A session is only ever used for the origin that gave it. Certificate and name were verified then and are not verified
when it is resumed, so none is used for longer than AGE_MAX.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

from ...net.bounded_cache import BoundedCache
from ..replicas.origin import Origin

SESSIONS_MAX = 100
"""Origins whose session is kept; the one not used for longest is forgotten first."""
AGE_MAX = 3600.0
"""Seconds after which a certificate is verified again."""


class _Entry(NamedTuple):
    session: ssl.SSLSession
    until: float


class TlsSessionCache:
    """The latest session of each origin. ``now`` is in seconds, of whatever clock."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: BoundedCache[Origin, _Entry] = BoundedCache(SESSIONS_MAX)

    def get(self, origin: Origin, now: float) -> ssl.SSLSession | None:
        """The session to offer to ``origin``."""
        kept = self._latest.get(origin)
        if kept is None or kept.until <= now:
            return None
        self._latest.entries.move_to_end(origin)
        return kept.session

    def keep(self, origin: Origin, session: ssl.SSLSession | None, now: float) -> None:
        """Keep the session of a closing connection, unless the peer would not resume it (no ticket, no id).

        A session that goes on from an older one is as old as that: resuming looks at no certificate.
        """
        if session is None or not (session.has_ticket or session.id):
            return
        before = self._latest.get(origin)
        until = before.until if before is not None and before.until > now else now + AGE_MAX
        self._latest.add(origin, _Entry(session, until))

    def forget(self, origin: Origin) -> bool:
        """Drop the session of an origin; whether there was one."""
        return self._latest.entries.pop(origin, None) is not None
