"""Sampling of records below WARNING. Pure.

The decision for a trace is a hash of its trace id, so that all processes keep or leave out the same traces.
"""

from __future__ import annotations

from random import Random
from zlib import crc32

_SHARES = 2**32


class Sampler:
    """The decision which records below WARNING are kept: a share of the traces, and all slow records."""

    def __init__(self, share: float, slow_ms: float, random: Random) -> None:
        self.share = share
        self._below = int(share * _SHARES)
        self._slow_ms = slow_ms
        self._random = random
        self.left_out = 0
        """The number of records that were not kept."""

    def keeps(self, trace: object, duration_ms: object) -> bool:
        """Whether a record below WARNING is kept; without a trace id the decision is random. Counts the others."""
        if isinstance(duration_ms, int | float) and duration_ms >= self._slow_ms:
            return True
        if isinstance(trace, str) and trace:
            chance = crc32(trace.encode("utf-8", "replace"))
        else:
            chance = self._random.getrandbits(32)
        if chance < self._below:
            return True
        self.left_out += 1
        return False
