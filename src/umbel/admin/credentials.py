"""Credentials of the admin side over TCP: the configured token, one-time tokens, and the cookie of a browser.

All comparisons take constant time. Failed tokens are bounded per client; a client beyond its bound is refused even with
a right token, because otherwise the bound would not slow guessing down. A cookie is never bounded: it has 256 random
bits, which nobody guesses.
"""

from __future__ import annotations

import enum
import ipaddress
import secrets
from collections.abc import Callable
from time import monotonic

from ..net.bounded_cache import BoundedCache
from ..policy.token_bucket import TokenBucket

ONE_TIME_S = 600.0
"""Seconds for which an unused one-time token is valid."""
ONE_TIME_MAX = 16
"""The bound on one-time tokens that are valid at once; a further one replaces the oldest."""
FAILED_AT_ONCE, FAILED_PER_SECOND = 10, 0.5
"""Failed tokens of one client: at once, and in the long run."""
_CLIENTS_MAX = 1024
_TOKEN_BYTES = 32
_IPV6_NETWORK_BITS = 64


class TokenCheck(enum.Enum):
    """The result of ``Credentials.check_token``."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    BLOCKED = enum.auto()
    """The client has sent too many wrong tokens; this one was not looked at."""


class Credentials:
    """The credentials of one process.

    Args:
        token: the configured token; None: there is none.
        clock: gives the time in seconds.
    """

    def __init__(self, token: str | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.cookie = secrets.token_urlsafe(_TOKEN_BYTES)
        """The value of the cookie, new for each process."""
        self.has_token = token is not None
        """Whether there is a configured token."""
        self._token = None if token is None else token.encode()
        self._clock = clock
        self._one_time: dict[bytes, float] = {}
        """The time of the end of each one-time token, the oldest first."""
        self._attempts: BoundedCache[str, TokenBucket] = BoundedCache(_CLIENTS_MAX)

    def new_one_time_token(self) -> str:
        """Make a token that is valid once, for ``ONE_TIME_S``."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        if len(self._one_time) >= ONE_TIME_MAX:
            del self._one_time[next(iter(self._one_time))]
        self._one_time[token.encode()] = self._clock() + ONE_TIME_S
        return token

    def is_cookie(self, value: bytes) -> bool:
        """Whether ``value`` is the value of the cookie."""
        return secrets.compare_digest(value, self.cookie.encode())

    def check_token(self, value: bytes, client: str, *, one_time: bool) -> TokenCheck:
        """Compare ``value`` with the configured token and, with ``one_time``, with the one-time tokens.

        A right one-time token is used up. A wrong token counts against ``client``.
        """
        key = _network(client)
        bucket = self._attempts.get(key)
        if bucket is None:
            bucket = TokenBucket(FAILED_AT_ONCE, FAILED_PER_SECOND)
            self._attempts.add(key, bucket)
        if not bucket.spend(self._clock()):
            return TokenCheck.BLOCKED
        is_configured = self._token is not None and secrets.compare_digest(value, self._token)
        if is_configured or (one_time and self._take_one_time(value)):
            bucket.grant(1)
            return TokenCheck.RIGHT
        return TokenCheck.WRONG

    def _take_one_time(self, value: bytes) -> bool:
        # A copy: another thread may add a token.
        found = [token for token in tuple(self._one_time) if secrets.compare_digest(value, token)]
        return any(self._one_time.pop(token) > self._clock() for token in found)


def _network(client: str) -> str:
    """The client's address; of IPv6 the network of 64 bits, of which one client has all addresses."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK_BITS), strict=False))
