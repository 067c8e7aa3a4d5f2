"""Hedge delay: a percentile of an upstream's latencies that a minority of slow replicas does not raise.

``percentile`` is called once per call, ``add`` once per attempt. It has no clock: ``now`` is handed in, in seconds.
"""

from __future__ import annotations

from ..net.bounded_cache import BoundedCache
from .quantile import LatencyDigest, LatencyStatistics

REPLICAS_MAX = 64
"""Replicas with a digest of their own, 18 kB each; the least recently used digest makes room for another.
Of many more replicas none has enough samples, and the percentile is that of all of them together."""
COMPUTED_EVERY = 0.1
"""Seconds for which a percentile is kept: asking the digest of each replica for each call would cost too much."""


class HedgeDelay:
    """The ``quantile`` of recent attempts as the time after which a call is hedged, by replica.

    It is the lower median of the replicas' own percentiles: what an attempt takes at most replicas. The percentile of
    all attempts together would be the time of the slow replica as soon as its share of attempts is larger than the
    quantile leaves, and no hedge would then help. Replicas with fewer samples than a digest needs
    (``quantile.SAMPLES_MIN``) are ignored; if all are such, it is the percentile of all attempts together.
    """

    __slots__ = ("_all", "_by_name", "_delay", "_quantile", "_valid_until")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._all = LatencyDigest(quantile)
        self._by_name: BoundedCache[str, LatencyDigest] = BoundedCache(REPLICAS_MAX)
        self._delay: float | None = None
        self._valid_until = 0.0

    def add(self, now: float, name: str | None, seconds: float) -> None:
        """Count an attempt of ``seconds`` at the replica ``name`` (None: not known)."""
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
        """Seconds, or None with too few samples. It is computed at most every ``COMPUTED_EVERY`` seconds."""
        if self._delay is None or now >= self._valid_until:
            self._delay = self._compute(now)
            self._valid_until = now + COMPUTED_EVERY
        return self._delay

    def statistics(self, now: float) -> LatencyStatistics:
        """A snapshot: the samples of all replicas, and the delay."""
        return LatencyStatistics(self._all.statistics(now).samples, self._compute(now))

    def _compute(self, now: float) -> float | None:
        of_all = self._all.percentile(now)
        if of_all is None:
            return None  # Where all together have too few samples, each has.
        each = [digest.percentile(now) for digest in self._by_name.entries.values()]
        known = sorted(seconds for seconds in each if seconds is not None)
        return known[(len(known) - 1) // 2] if known else of_all
