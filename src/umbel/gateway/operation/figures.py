"""Figures of an application: the counts of its requests, upstreams and logs, for the metrics of its process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from ...auth.statistics import authenticator_statistics
from ...core.identity import OUTCOMES
from ...logs import FileRecorder
from ...observe import catalogue
from ...observe.figures import Exemplar, Labels, Value
from ...observe.request_counts import NO_CREDENTIAL
from ...policy.breaker import BreakerState
from ...upstream.calls.attempt_counts import REPLICAS_MAX
from ...upstream.client import Client

if TYPE_CHECKING:
    from ..runtime import Runtime

_BREAKER = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

Values = dict[str, list[tuple[Labels, Value]]]
Exemplars = Mapping[str, list[tuple[Labels, list[Exemplar]]]]


def application_figures(runtime: Runtime) -> tuple[Values, Exemplars]:
    """The values and exemplars of a serving application's metrics, as ``observe.figures.ProcessFigures`` has them.

    Does not wait, and takes some 1 µs per time series. An upstream whose client is replaced by an httpx transport has
    no values.
    """
    counts = runtime.recorder
    values = counts.values()
    for name, caller in runtime.callers.items():
        if isinstance(caller, Client):
            for metric, samples in upstream_values(name, caller).items():
                values.setdefault(metric, []).extend(samples)
    for metric, samples in (_mirror_values(runtime) | _auth_values(runtime) | _limit_values(runtime)).items():
        values.setdefault(metric, []).extend(samples)
    if runtime.spans is not None:
        spans = runtime.spans.statistics()
        counted = ("exported", spans.exported), ("failed", spans.failed), ("dropped", spans.dropped)
        values[catalogue.TRACE_SPANS.name] = [((result,), count) for result, count in counted]
    if isinstance(counts.inner, FileRecorder):
        values[catalogue.LOG_DROPPED.name] = [
            ((log,), statistics.dropped) for log, statistics in counts.inner.statistics().streams.items()
        ]
    return values, counts.exemplars()


def _mirror_values(runtime: Runtime) -> Values:
    """The values about copies. Those of attempts and connections are added to the values of the upstream's calls."""
    values: Values = {}
    for name, copies in runtime.mirrors.statistics().items():
        values.setdefault(catalogue.MIRRORED.name, []).extend(((name, r), n) for r, n in copies.results.items())
        client = runtime.mirrors.callers[name]
        if isinstance(client, Client) and client.first_cause == "mirror":
            of_client = upstream_values(name, client)
            for metric in (catalogue.CLIENT_DURATION, catalogue.ATTEMPTS, catalogue.POOL_CONNECTIONS):
                values.setdefault(metric.name, []).extend(of_client[metric.name])
    return values


def _auth_values(runtime: Runtime) -> Values:
    """The values about keys, and a zero for each outcome of requests.

    The labels are from the configuration and from closed lists. Without the zeros ``rate()`` would not see the first
    request of an outcome.
    """
    kinds = {each.kind for each in runtime.authenticators.values()}
    outcomes = [(kind, outcome) for kind in sorted(kinds) for outcome in OUTCOMES if outcome != "missing"]
    values: Values = {catalogue.AUTH_REQUESTS.name: [(labels, 0) for labels in outcomes]}
    if kinds:
        values[catalogue.AUTH_REQUESTS.name].append(((NO_CREDENTIAL, "missing"), 0))
    for each in authenticator_statistics(runtime.authenticators.values(), runtime.redactor):
        if each.kind == "jwt":
            values.setdefault(catalogue.AUTH_CACHED_TOKENS.name, []).append(((each.name,), each.cached_tokens))
        for keys in each.sources:
            own = each.name, keys.issuer
            values.setdefault(catalogue.AUTH_KEYS.name, []).append((own, keys.keys))
            if keys.age is not None:
                values.setdefault(catalogue.AUTH_KEYS_AGE.name, []).append((own, keys.age))
            if keys.fetches:
                values.setdefault(catalogue.AUTH_KEY_FETCHES.name, []).extend(
                    [((*own, "ok"), keys.fetches - keys.failures), ((*own, "failed"), keys.failures)]
                )
    return values


def _limit_values(runtime: Runtime) -> Values:
    values: Values = {}
    for limiter in runtime.limiters.values():
        statistics = limiter.statistics()
        name = statistics.name
        values.setdefault(catalogue.LIMIT_REQUESTS.name, []).extend(
            [((name, "admitted"), statistics.admitted), ((name, "refused"), statistics.refused)]
        )
        values.setdefault(catalogue.LIMIT_WAITING.name, []).append(((name,), statistics.waiting))
        values.setdefault(catalogue.LIMIT_DELAYED.name, []).append(((name,), statistics.delayed))
        values.setdefault(catalogue.LIMIT_KEYS.name, []).append(((name,), statistics.keys))
        values.setdefault(catalogue.LIMIT_EVICTIONS.name, []).append(((name,), statistics.evicted))
    return values


def upstream_values(name: str, client: Client) -> Values:
    """The values of one upstream's metrics, with its name as first label."""
    attempts, bulkhead, budget, pool = (
        client.attempt_counts,
        client.bulkhead,
        client.budget.statistics(),
        client.pool.statistics(),
    )
    own: Labels = (name,)
    values: Values = {
        catalogue.CLIENT_DURATION.name: [
            ((name, replica, "" if status is None else str(status)), cells[:])
            for (replica, status), cells in attempts.durations.items()
        ],
        catalogue.ATTEMPTS.name: [((name, cause), count) for cause, count in attempts.causes.items()],
        catalogue.REPLICA_EJECTED.name: [
            ((name, replica), float(ejected)) for replica, ejected in client.balance.ejections()[:REPLICAS_MAX]
        ],
        catalogue.BULKHEAD_IN_USE.name: [(own, bulkhead.in_use)],
        catalogue.BULKHEAD_WAITING.name: [(own, bulkhead.queued)],
        catalogue.BULKHEAD_LIMIT.name: [(own, bulkhead.capacity)],
        catalogue.UPSTREAM_STREAMS.name: [(own, client.streams.open)],
        catalogue.BUDGET_LEFT.name: [(own, max(0.0, budget.limit - budget.extra))],
        catalogue.BUDGET_DENIED.name: [(own, budget.denied)],
        catalogue.POOL_CONNECTIONS.name: [
            ((name, "connecting"), pool.connecting),
            ((name, "active"), pool.active),
            ((name, "idle"), pool.idle),
        ],
    }
    if client.breaker is not None:
        state = client.breaker.statistics(trio.current_time()).state
        values[catalogue.BREAKER_STATE.name] = [(own, _BREAKER[state])]
    return values
