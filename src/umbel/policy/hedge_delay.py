"""A percentile of an upstream's latencies that a minority of slow replicas does not spoil: it times hedges.

Asked once per call, and told of each attempt. Knows no clock: whoever adds says when.
"""

from __future__ import annotations

from ..net.bounded_cache import BoundedCache
from .quantile import LatencyDigest, LatencyStatistics

REPLICAS_MAX = 64
"""Replicas that are told apart, 18 kB each; with one more, the one that was not heard of for the longest is forgotten.
Of far more than these none ever has enough samples, and the percentile is that of all of them together."""
FOUND_EVERY = 0.1
"""Seconds: asking each replica's digest for each call would cost more the more replicas there are."""


class Latencies:
    """The ``quantile`` of the attempts of late, told apart by replica.

    What is said is the lower median of the replicas' own percentiles: what an attempt takes at a replica as they mostly
    are. Of all attempts together it would be what the slow replica takes as soon as that has a share of them larger
    than the quantile leaves; and then no hedge would come in time to help. Replicas with fewer samples than a digest
    wants (``latency.SAMPLES_MIN``) have no say; if all are such, the percentile is that of all together.
    """

    __slots__ = ("_all", "_by_name", "_quantile", "_said", "_stands_until")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._all = LatencyDigest(quantile)
        self._by_name: BoundedCache[str, LatencyDigest] = BoundedCache(REPLICAS_MAX)
        self._said: float | None = None
        self._stands_until = 0.0

    def add(self, now: float, name: str | None, seconds: float) -> None:
        """Count an attempt at the replica ``name`` (None: it is not known) that took so long."""
        self._all.add(now, seconds)
        if name is None:
            return
        digest = self._by_name.get(name)
        if digest is not None:
            self._by_name.entries.move_to_end(name)
        else:
            digest = LatencyDigest(self._quantile)
            self._by_name.add(name, digest)
        digest.add(now, seconds)

    def percentile(self, now: float) -> float | None:
        """Seconds, or None if there are too few samples. It is found anew every FOUND_EVERY seconds at most."""
        if self._said is None or now >= self._stands_until:
            self._said = self._found(now)
            self._stands_until = now + FOUND_EVERY
        return self._said

    def statistics(self, now: float) -> LatencyStatistics:
        """A snapshot: the samples of all, and what is said."""
        return LatencyStatistics(self._all.statistics(now).samples, self._found(now))

    def _found(self, now: float) -> float | None:
        of_all = self._all.percentile(now)
        if of_all is None:
            return None  # Where all together have too few samples, each has.
        each = [digest.percentile(now) for digest in self._by_name.entries.values()]
        known = sorted(seconds for seconds in each if seconds is not None)
        return known[(len(known) - 1) // 2] if known else of_all
