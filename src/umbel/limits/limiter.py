"""Limiter: the limit of one section ``[limits.NAME]`` in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from ..config.schema.access.limits import parse_request_rate
from ..policy.gcra import Decision, Gcra, Key
from .key_table import KeyTable
from .limit_expression import Context, compiled, cost_of, evaluator, key_of, reads_auth
from .sharing import WorkerShare

if TYPE_CHECKING:
    from ..config.schema.access.limits import Limit
    from ..config.schema.sections import Config

_BUCKETS = 16
"""The buckets of a table into which the time of a whole burst is divided."""
_WIDTH_MIN = 0.001
_DIGEST_SIZE = 8
_INTEGER_MAX = 10**15 - 1
"""The greatest integer of a structured field (RFC 9651 section 3.3.1)."""
ROUNDING = 1e-6
"""More than the rounding errors of times, in seconds: 60 s must not be shown as 61 s."""


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """A snapshot of a limiter."""

    name: str
    keys: int
    """The keys that are remembered, also those that have nothing spent any more."""
    admitted: int
    refused: int
    evicted: int
    """Keys that were evicted though they had something spent, because ``max_keys`` was reached."""
    shared: str
    """``machine``: a master adds up what the workers have spent; ``worker``: this process counts alone."""
    waiting: int = 0
    """Calls to upstreams that wait for the limit now."""
    delayed: int = 0
    """Calls that had to wait."""


class Limiter:
    """Decides whether requests, or calls to an upstream, conform to one limit. Never waits.

    Args:
        name: the name of the section.
        section: the section, whose expressions are valid.
    """

    def __init__(self, name: str, section: Limit) -> None:
        rate = parse_request_rate(section.rate)
        self.name = name
        self.section = section
        self.identity = _identity(name, section)
        """The name with a digest of what decides: what is spent of a limit of another identity counts apart."""
        self._gcra = Gcra(rate.per_second, section.burst)
        self.width = max(section.burst / rate.per_second / _BUCKETS, _WIDTH_MIN)
        """As of ``KeyTable``."""
        self._table = KeyTable(section.max_keys, self.width)
        self._share: WorkerShare | None = None
        self._on_spent: Callable[[], object] | None = None
        key = compiled(section.key, ("limits", name, "key"))
        cost = None if section.cost is None else compiled(section.cost, ("limits", name, "cost"))
        self._key = evaluator(key)
        self._cost = None if cost is None else evaluator(cost)
        self.expressions = (key,) if cost is None else (key, cost)
        self.reads_auth = any(map(reads_auth, self.expressions))
        """Whether the limit can decide only after authentication."""
        quota, window = rate.quota
        self.policy = f'"{name}";q={quota};w={window}'
        """The member of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10 section 3)."""
        self._item = f'"{name}";r='
        self._admitted = 0
        self._refused = 0
        self.waiting = 0
        """Calls that wait for the limit now; counted by the one who lets them wait."""
        self.delayed = 0
        """Calls that had to wait; counted likewise."""

    def share(self, on_spent: Callable[[], object]) -> WorkerShare:
        """Count together with the other workers of a master from now on, by messages of the returned share.

        ``on_spent`` is called when there is something to report for the first time since the last report.
        """
        self._on_spent = on_spent
        self._share = WorkerShare(self._table, self.section.max_keys)
        return self._share

    def decide(self, context: Context, now: float) -> tuple[Key, Decision]:
        """Decide about a request, and spend nothing yet. ``now``: ``trio.current_time()``.

        Args:
            context: the values that ``expressions`` read, by name.

        Returns:
            The key of the request, and the decision.
        """
        key, cost = self.price(context)
        return key, self.decide_price(key, cost, now)

    def price(self, context: Context) -> tuple[Key, float]:
        """The key and the cost of a request. ``context``: as for ``decide``."""
        return key_of(self._key(context)), 1.0 if self._cost is None else cost_of(self._cost(context))

    def decide_price(self, key: Key, cost: float, now: float) -> Decision:
        """Decide whether ``key`` may spend ``cost`` now, and spend nothing yet."""
        return self._gcra.decide(self._table.get(key), now, cost)

    def wait(self, key: Key, cost: float, ahead: float, now: float) -> float:
        """Seconds until ``key`` may spend ``cost`` behind ``ahead`` units of others (``Gcra.wait``)."""
        return self._gcra.wait(self._table.get(key), now, cost, ahead)

    def spend(self, key: Key, decision: Decision, now: float) -> None:
        """Spend what a decision has admitted."""
        self._admitted += 1
        tat = decision.tat
        if tat <= now:
            return
        if self._share is not None:
            before = self._table.get(key)
            if self._share.spend(key, tat - (before if before > now else now), tat) and self._on_spent is not None:
                self._on_spent()
        self._table.set(key, tat, now)

    def refuse(self) -> None:
        """Count a refusal."""
        self._refused += 1

    def item(self, decision: Decision) -> str:
        """The member of the field RateLimit after a decision: what is left now, and seconds until all of it is."""
        return f"{self._item}{int(decision.remaining + 1e-6)};t={min(ceil(decision.reset - ROUNDING), _INTEGER_MAX)}"

    def statistics(self) -> LimiterStatistics:
        """A snapshot."""
        share, evicted = self._share, self._table.evicted
        return LimiterStatistics(
            self.name,
            len(self._table),
            self._admitted,
            self._refused,
            evicted if share is None else evicted + share.unreported,
            "worker" if share is None else "machine",
            self.waiting,
            self.delayed,
        )


def _identity(name: str, section: Limit) -> str:
    rate = parse_request_rate(section.rate).per_second
    decides = repr((section.key, rate, section.burst, section.cost)).encode("utf-8", "surrogatepass")
    return f"{name}@{hashlib.blake2b(decides, digest_size=_DIGEST_SIZE).hexdigest()}"


def name_of_identity(identity: str) -> str:
    """The name of the section in the identity of a limiter, also where a process has added a number to it."""
    return identity.partition("@")[0]


def limiters_named(sections: Mapping[str, Limit], names: Iterable[str]) -> list[Limiter]:
    """New limiters of the sections with these names, each once.

    Raises:
        ValueError: there is no section of a name.
    """
    for name in names:
        if name not in sections:
            there = f"name one of: {', '.join(sections)}" if sections else "the configuration has none yet"
            raise ValueError(f"there is no section [limits.{name}]; {there}")
    return [Limiter(name, sections[name]) for name in dict.fromkeys(names)]


def limiters_of(config: Config) -> dict[str, Limiter]:
    """The limiters of a configuration, by name."""
    return {limiter.name: limiter for limiter in limiters_named(config.limits, config.limits)}
