"""TLS session cache: the next connection to the same origin resumes a session (RFC 8446 section 2.2).

A session is used only for the origin that gave it. Certificate and name were verified in the full handshake and are not
verified again when the session is resumed, so a session is not used for longer than AGE_MAX.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

from ...net.bounded_cache import BoundedCache
from ..replicas.origin import Origin

SESSIONS_MAX = 100
"""Bound on the origins with a session; the least recently used one is dropped first."""
AGE_MAX = 3600.0
"""Seconds after a full handshake for which its session is used."""


class _Entry(NamedTuple):
    session: ssl.SSLSession
    until: float


class TlsSessionCache:
    """The latest TLS session of each origin, for its next connection.

    ``now`` is the time in seconds of any clock that does not go back.
    """

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: BoundedCache[Origin, _Entry] = BoundedCache(SESSIONS_MAX)

    def get(self, origin: Origin, now: float) -> ssl.SSLSession | None:
        """The session to offer to ``origin``; None without one."""
        kept = self._latest.get(origin)
        if kept is None or kept.until <= now:
            return None
        self._latest.entries.move_to_end(origin)
        return kept.session

    def keep(self, origin: Origin, session: ssl.SSLSession | None, now: float) -> None:
        """Keep the session of a closing connection, unless it cannot be resumed (no ticket and no id).

        If the cache has a session of the origin, the new session expires when the old one would have: it may come from
        a resumed handshake, in which no certificate was verified.
        """
        if session is None or not (session.has_ticket or session.id):
            return
        before = self._latest.get(origin)
        until = before.until if before is not None and before.until > now else now + AGE_MAX
        self._latest.add(origin, _Entry(session, until))

    def forget(self, origin: Origin) -> bool:
        """Drop the session of an origin. Return whether there was one."""
        return self._latest.entries.pop(origin, None) is not None
