"""The order of an upstream's layers, spelled once, and the stack that they make.

Built by the gateway for each upstream of the configuration; the composition sees it as an ``httpx.AsyncBaseTransport``.
It adds nothing of its own.

Outermost first, and why each stands where it stands:

1. **coalesce**: of identical calls only one goes on, so everything below counts what the upstream really gets.
2. **breaker**: admits once per call, before the call waits for anything, so that calls of an upstream that is out fail
   at once and fill no queue. It is told of each attempt, from below.
3. **bulkhead**: counts calls, not attempts, and is the upstream's only queue. Outside of all that makes attempts, so
   that a retry never queues again behind new calls, and a call that finds the queue full has cost nothing.
4. **retry**, then 5. **hedge**: each retry is a race of its own. Both draw on one budget, so that together they cannot
   add more load than it bears.
6. **balance**: takes a replica for each attempt. Below retries and hedges, so that another attempt can take another
   replica; above the attempt, so that the record names the replica.
7. **attempt**: tells the upstream the time that is left now, after the queue; traces, records, and tells the breaker
   what came. It sees the body being read, so a late, broken or too big body is its failure.
8. **body**: reads, bounds, decodes. Above it a response is complete, and its connection is back in the pool.
9. **pool**: connections. Without a limit of its own: the bulkhead has counted already, and two queues would hide one
   another.

A layer that nobody asked for is not there, so it costs nothing.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from ..config.policies import Ejection, Health
from ..config.schema import Config, KeyPath, Tls, Upstream
from ..events import NULL, Recorder
from ..inflight import InFlight, Prepared
from ..model import CallFacts
from ..policy.budget import Budget, BudgetStatistics
from ..policy.ejection import EjectionRules
from .attempt import Attempt
from .balance import Balance, BalanceStatistics
from .body import Body
from .breaker import Breaker, BreakerStatistics
from .bulkhead import Bulkhead, BulkheadStatistics
from .coalesce import Coalesce, CoalesceStatistics
from .express import Express
from .health import Health as HealthChecks
from .hedge import Hedge, HedgeStatistics
from .http1 import Limits
from .layer import Layer
from .origin import Replica
from .pool import Pool, PoolStatistics
from .replicas import JoinedReplicas, ReplicaSource
from .retry import Retry, RetryStatistics
from .sentoff import PlainLayers
from .tls import client_context


@dataclass(frozen=True, slots=True)
class StackStatistics:
    """A snapshot of an upstream; None for a layer that it has not."""

    coalesce: CoalesceStatistics | None
    breaker: BreakerStatistics | None
    bulkhead: BulkheadStatistics
    retry: RetryStatistics | None
    hedge: HedgeStatistics | None
    budget: BudgetStatistics
    balance: BalanceStatistics
    pool: PoolStatistics


@dataclass(slots=True)
class _Layers:
    """The layers of a stack by name."""

    budget: Budget
    bulkhead: Bulkhead
    balance: Balance
    pool: Pool
    coalesce: Coalesce | None = None
    breaker: Breaker | None = None
    retry: Retry | None = None
    hedge: Hedge | None = None


class StackError(ValueError):
    """An upstream's stack cannot be built: ``reason`` says why, in one sentence, and ``key`` where in its table."""

    def __init__(self, key: KeyPath, reason: str) -> None:
        super().__init__(f"{'.'.join(map(str, key))}: {reason}")
        self.key = key
        self.reason = reason


class Stack(Layer):
    """An upstream's layers as one transport and one async context manager. Made by ``build``."""

    def __init__(
        self, name: str, outermost: httpx.AsyncBaseTransport, layers: _Layers, express: Express | None
    ) -> None:
        super().__init__(outermost)
        self.name = name
        self._layers = layers
        self._express = express

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The complete response: read, decoded, bounded, its connection given back.

        Raises:
            UpstreamError: of the kind that says why there is none.
        """
        return await self._transport.handle_async_request(request)

    def send_off(
        self, prepared: Prepared, facts: CallFacts, arrived: Callable[[InFlight], None], now: float
    ) -> InFlight | None:
        """See ``inflight.SendsOff``. Always None where the upstream hedges, coalesces or learns its limit."""
        return self._express.send_off(prepared, facts, arrived, now) if self._express is not None else None

    def statistics(self) -> StackStatistics:
        """A snapshot."""
        layers = self._layers
        return StackStatistics(
            layers.coalesce.statistics() if layers.coalesce is not None else None,
            layers.breaker.statistics() if layers.breaker is not None else None,
            layers.bulkhead.statistics(),
            layers.retry.statistics() if layers.retry is not None else None,
            layers.hedge.statistics() if layers.hedge is not None else None,
            layers.budget.statistics(),
            layers.balance.statistics(),
            layers.pool.statistics(),
        )


def build(
    name: str,
    config: Upstream,
    *,
    overrides: Collection[str] = (),
    recorder: Recorder = NULL,
    base_dir: Path | None = None,
    rng: random.Random | None = None,
) -> Stack:
    """The stack of one upstream. TLS files are read here; relative ones are relative to ``base_dir``.

    Args:
        overrides: which of ``retry``, ``hedge`` and ``coalesce`` some call sets for itself: those layers are there even
            if the upstream does not use them.
        recorder: hears of breakers that open and close, and of replicas that are put out, fail their checks, come back.

    Raises:
        StackError: a TLS file cannot be used, or two keys do not go together.
    """
    secure = any(each.url.removeprefix("dns+").startswith("https:") for each in config.replicas)
    context = _context(config.tls, base_dir or Path()) if secure else None
    return _built(config, overrides, _Common(name, recorder, rng or random.Random()), context)


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What only building the upstreams' stacks shows, with the key it lies at; for ``load(path, checks=(check,))``.

    TLS files are not among it: the loader has looked at them.
    """
    for name, upstream in config.upstreams.items():
        try:
            _built(upstream, (), _Common(name, NULL, random.Random()), None)
        except StackError as error:
            yield ("upstreams", name, *error.key), error.reason


def _built(config: Upstream, overrides: Collection[str], common: _Common, context: ssl.SSLContext | None) -> Stack:
    """The layers from the inside out."""
    replicas = _replicas(config)
    concurrency = config.max_concurrency
    pool = Pool(
        connect_timeout=config.connect_timeout,
        keepalive_expiry=config.keepalive_expiry,
        max_connections=None,
        max_idle=_MAX_IDLE_AUTO if concurrency == "auto" else concurrency,
        limits=Limits(config.max_head, config.max_fields),
        ssl_context=context,
        public_only=config.public_only,
    )
    body = Body(pool, max_body=config.max_body)
    attempt = Attempt(body, deadline_header=config.deadline_header or None, rng=common.rng)
    balance = Balance(
        attempt,
        replicas,
        policy=config.balance,
        weights=_weights(config) if isinstance(replicas, list) and config.balance == "weighted" else None,
        ejection=_ejection(config.ejection) if config.ejection else None,
        health=_health(config.health, body, replicas, common),
        rng=common.rng,
        name=common.name,
        recorder=common.recorder,
    )
    layers = _Layers(Budget(config.retry_budget), Bulkhead(balance), balance, pool)
    outermost = _outer(config, overrides, balance, layers, common)
    return Stack(common.name, outermost, layers, _express(config, layers, attempt, body))


def _express(config: Upstream, layers: _Layers, attempt: Attempt, body: Body) -> Express | None:
    """The way of requests without a task of their own; none where a layer has tasks or learns from requests."""
    if layers.hedge is not None or layers.coalesce is not None or config.max_concurrency == "auto":
        return None
    pool, bulkhead, balance = layers.pool, layers.bulkhead, layers.balance
    limits = Limits(config.max_head, config.max_fields)
    return Express(PlainLayers(bulkhead, balance, attempt, body, pool, limits, layers.breaker, layers.retry))


_MAX_IDLE_AUTO = 1000


class _Common(NamedTuple):
    """What several layers of a stack are given."""

    name: str
    recorder: Recorder
    rng: random.Random


def _outer(
    config: Upstream,
    overrides: Collection[str],
    balance: Balance,
    layers: _Layers,
    common: _Common,
) -> httpx.AsyncBaseTransport:
    """The layers above the balance, from the inside out."""
    name, recorder, rng = common
    transport: httpx.AsyncBaseTransport = balance
    if (hedge := config.hedge) is not None or "hedge" in overrides:
        after, most = (hedge.after, hedge.max) if hedge is not None else ("p95", 0)
        transport = layers.hedge = Hedge(transport, after=after, max=most, budget=layers.budget)
    if (retry := config.retry) is not None or "retry" in overrides:
        rules = retry.model_dump() if retry is not None else {"attempts": 1}
        transport = layers.retry = Retry(transport, **rules, budget=layers.budget, rng=rng)
    transport = layers.bulkhead = Bulkhead(
        transport, max_concurrency=config.max_concurrency, max_queue=config.max_queue
    )
    if config.breaker is not None:
        transport = layers.breaker = Breaker(transport, **config.breaker.model_dump(), name=name, recorder=recorder)
    if config.coalesce or "coalesce" in overrides:
        transport = layers.coalesce = Coalesce(transport, usual=config.coalesce, rng=rng)
    return transport


def _replicas(config: Upstream) -> list[Replica] | ReplicaSource:
    """The replicas as they are, or, where a ``dns+`` URL stands among them, as the set that its name has."""
    name, urls = config.tls.server_name, [each.url for each in config.replicas]
    if not any(url.startswith("dns+") for url in urls):
        return [Replica.parse(url, server_name=name) for url in urls]
    # Here and not above: dnspython takes as long to import as all the rest, and few configurations need it.
    from .dns import DnsReplicas

    parts: list[Replica | ReplicaSource] = []
    for place, url in enumerate(urls):
        if url.startswith("dns+"):
            try:
                parts.append(DnsReplicas(url, server_name=name, public_only=config.public_only))
            except ValueError as error:
                raise StackError(("urls", place), str(error)) from error
        else:
            parts.append(Replica.parse(url, server_name=name))
    return JoinedReplicas(parts, _weights(config))


def _weights(config: Upstream) -> list[int]:
    return [each.weight for each in config.replicas]


def _ejection(config: Literal[True] | Ejection) -> EjectionRules:
    if config is True:
        return EjectionRules()
    try:
        return EjectionRules(config.failures, config.base, config.max, config.share)
    except ValueError as error:
        raise StackError(("ejection",), str(error)) from error


def _health(
    config: Health | None, below: Body, replicas: list[Replica] | ReplicaSource, common: _Common
) -> HealthChecks | None:
    if config is None:
        return None
    return HealthChecks(below, replicas, **config.model_dump(), **common._asdict())


def _context(tls: Tls, base: Path) -> ssl.SSLContext:
    files = {key: str(base / file) for key, file in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)) if file}
    try:
        return client_context(**files)
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise StackError(("tls", key), reason) from error
