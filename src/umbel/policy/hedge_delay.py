"""Hedge delay: a percentile of an upstream's latencies that a minority of slow replicas does not raise."""

from __future__ import annotations

from ..net.bounded_cache import BoundedCache
from .quantile import LatencyDigest, LatencyStatistics

REPLICAS_MAX = 64
"""Bound on the replicas with a digest of their own (18 kB each); the least recently used digest is dropped first. Of
many more replicas none would have enough samples, and the percentile of all attempts together is used."""
COMPUTED_EVERY = 0.1
"""Seconds for which a computed delay is used: asking every digest for every call would be slow."""


class HedgeDelay:
    """The delay after which a call is hedged: the ``quantile`` of recent latencies of attempts.

    The delay is the lower median of the replicas' own percentiles, so at least half of the replicas are not slower. The
    percentile of all attempts together would be the latency of a slow replica once that replica has a larger share of
    the attempts than ``1 - quantile``, and a hedge after that delay would not help. Replicas with fewer samples than
    ``quantile.SAMPLES_MIN`` are ignored; if all are ignored, the delay is the percentile of all attempts together.

    Args:
        quantile: above 0 and below 1, such as 0.95.
    """

    __slots__ = ("_all", "_by_name", "_delay", "_quantile", "_valid_until")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._all = LatencyDigest(quantile)
        self._by_name: BoundedCache[str, LatencyDigest] = BoundedCache(REPLICAS_MAX)
        self._delay: float | None = None
        self._valid_until = 0.0

    def add(self, now: float, name: str | None, seconds: float) -> None:
        """Count the latency of an attempt at the replica ``name`` (None: unknown)."""
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
        """The delay in seconds, at most ``COMPUTED_EVERY`` seconds old.

        Returns:
            None if all attempts together have fewer samples than ``quantile.SAMPLES_MIN``.
        """
        if self._delay is None or now >= self._valid_until:
            self._delay = self._compute(now)
            self._valid_until = now + COMPUTED_EVERY
        return self._delay

    def statistics(self, now: float) -> LatencyStatistics:
        """A snapshot: the number of samples of all attempts together, and the delay, computed now.

        The delay is None if there are too few samples.
        """
        return LatencyStatistics(self._all.statistics(now).samples, self._compute(now))

    def _compute(self, now: float) -> float | None:
        of_all = self._all.percentile(now)
        if of_all is None:
            return None  # If all attempts together are too few, those of each replica are.
        each = [digest.percentile(now) for digest in self._by_name.entries.values()]
        known = sorted(seconds for seconds in each if seconds is not None)
        return known[(len(known) - 1) // 2] if known else of_all
