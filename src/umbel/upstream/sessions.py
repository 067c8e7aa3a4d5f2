"""TLS sessions, kept so that the next connection to the same origin needs no full handshake (RFC 8446 section 2.2).

Kept by the dialer, written by its wires as they close. A session is only ever used for the origin that gave it: its
certificate and name were verified then, and are not again.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict

from .origin import Origin

SESSIONS_MAX = 100
"""Origins whose session is kept; the one not used for longest is forgotten first."""


class Sessions:
    """The latest session of each origin."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: OrderedDict[Origin, ssl.SSLSession] = OrderedDict()

    def get(self, origin: Origin) -> ssl.SSLSession | None:
        """The session to offer to ``origin``."""
        session = self._latest.get(origin)
        if session is not None:
            self._latest.move_to_end(origin)
        return session

    def keep(self, origin: Origin, session: ssl.SSLSession | None) -> None:
        """Take what a closing connection has; one that the peer will not resume (no ticket) is not worth keeping."""
        if session is None or not (session.has_ticket or session.id):
            return
        self._latest[origin] = session
        self._latest.move_to_end(origin)
        if len(self._latest) > SESSIONS_MAX:
            self._latest.popitem(last=False)
