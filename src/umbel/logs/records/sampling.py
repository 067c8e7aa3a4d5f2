"""Which of the many records that say nothing new are kept.

Pure. All records of one trace share one fate, in every process.
"""

from __future__ import annotations

from random import Random
from zlib import crc32

_SHARES = 2**32


class Sampler:
    """Keeps a share of the records below WARNING; slow ones are always kept."""

    def __init__(self, share: float, slow_ms: float, random: Random) -> None:
        self.share = share
        self._below = int(share * _SHARES)
        self._slow_ms = slow_ms
        self._random = random
        self.left_out = 0
        """How many records were sampled away."""

    def keeps(self, trace: object, duration_ms: object) -> bool:
        """Whether a record below WARNING stays. Without a trace it is left to chance."""
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
