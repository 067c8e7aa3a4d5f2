"""Sampling of records below WARNING. Pure.

The decision for a trace is a hash of its trace id, so that all processes keep or leave out the same traces.
"""

from __future__ import annotations

from random import Random
from zlib import crc32

_SHARES = 2**32


class Sampler:
    """Decides which records below WARNING are kept: those of a share of the traces, and all slow records.

    Args:
        share: the share that is kept, above 0 and below 1.
        slow_ms: the duration in milliseconds from which on a record is always kept.
        random: the source of the decisions about records without a trace id.
    """

    def __init__(self, share: float, slow_ms: float, random: Random) -> None:
        self.share = share
        self._below = int(share * _SHARES)
        self._slow_ms = slow_ms
        self._random = random
        self.left_out = 0
        """The number of records that were not kept."""

    def keeps(self, trace: object, duration_ms: object) -> bool:
        """Decide whether a record below WARNING is kept, and count it if not.

        Args:
            trace: the trace id; anything but a text that is not empty means none, and the decision is random.
            duration_ms: the duration in milliseconds; anything but a number means none.
        """
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
