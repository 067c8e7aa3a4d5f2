"""Split: which upstream gets a request, by its key. Pure.

Theory
------
**Problem.** A new version gets a share of the requests. All requests with one key (a user, a session, an address) must
go to the same version, in every worker and after every restart, without a table of keys. If the share is raised, a key
that is at the new version must stay there.

**Position.** A keyed hash gives each key a position from 0 to 1. It depends on the key and on the upstream whose
requests are split. So all splits of one upstream agree about a key, and the splits of two upstreams are independent:
otherwise the same people would get every new version.

**Intervals.** Each upstream has an interval of positions as long as its share; the default upstream has what is left.
The intervals of the first, third, … upstream grow from 0 upwards, side by side; those of the second, fourth, … from 1
downwards::

    0                                                    1
    |-- first --|-- third --|     default     |- second -|

With one or two upstreams beside the default one, a raised share takes positions of the default upstream only, and a
lowered one gives them back: no other key moves. With more, the interval of the third one is behind that of the first:
when the first one grows, keys at the border of the two move too. No rule without a memory avoids that for three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import blake2b

_BITS = 53
"""The bits of a position: as many as a float holds exactly."""
_KEY_BYTES_MAX = 64
"""The longest key of BLAKE2b."""


class Split:
    """Shares of the requests by upstream.

    Args:
        default: the upstream whose requests are split. It gets the rest.
        shares: by upstream, its share, from 0 to 1. Their order decides which keys move when a share is changed.
    """

    def __init__(self, default: str, shares: Mapping[str, float]) -> None:
        self.default = default
        self.shares = dict(shares)
        self._hash_key = blake2b(default.encode(), digest_size=_KEY_BYTES_MAX).digest()
        self._below: list[tuple[float, str]] = []
        """The upper ends of the intervals from 0 upwards, ascending."""
        self._above: list[tuple[float, str]] = []
        """The lower ends of the intervals from 1 downwards, descending."""
        low, high = 0.0, 1.0
        for place, (upstream, share) in enumerate(self.shares.items()):
            if place % 2 == 0:
                low += share
                self._below.append((low, upstream))
            else:
                high -= share
                self._above.append((high, upstream))

    def position(self, key: str) -> float:
        """The position of a key: at least 0 and below 1. Takes time in proportion to its length."""
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=self._hash_key).digest()
        return math.ldexp(int.from_bytes(digest, "big") >> (64 - _BITS), -_BITS)

    def at(self, position: float) -> str:
        """The upstream at a position."""
        for end, upstream in self._below:
            if position < end:
                return upstream
        for start, upstream in self._above:
            if position >= start:
                return upstream
        return self.default

    def choose(self, key: str | None, draw: Callable[[], float]) -> str:
        """The upstream of a request.

        Args:
            key: the key of the request; None: it has none, and its position is drawn.
            draw: returns a random number that is at least 0 and below 1.
        """
        return self.at(draw() if key is None else self.position(key))
