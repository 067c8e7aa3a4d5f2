"""Catalogue of all metrics: name, type, labels, meaning, and how values of several processes become one.

Names follow OpenTelemetry's HTTP semantic conventions where they have one, in Prometheus's spelling; all others begin
with ``umbel_``. A label's values come from the configuration, the code or a closed list, never from a request: so the
number of time series is bounded. The output, ``umbel metrics`` and docs/metrics.md are made from this list.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..core.statistics.histogram import DURATIONS, OWN_TIMES


class Type(enum.StrEnum):
    """Type of a metric, in the words of OpenMetrics."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


class Merge(enum.StrEnum):
    """How the values of several processes with equal labels become one value."""

    SUM = "sum"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Counters and histograms never fall: the values of ended workers are kept. Gauges are those of living processes.
    """

    name: str
    """The name in the output; a counter's ends in ``_total``, a duration's in ``_seconds``."""
    type: Type
    labels: tuple[str, ...]
    """The names of the labels, in the order of the values in ``ProcessFigures``."""
    meaning: str
    merge: Merge = Merge.SUM
    bounds: tuple[float, ...] = ()
    """The upper bounds of a histogram's buckets, in seconds."""


def _counter(name: str, labels: str, meaning: str) -> Metric:
    return Metric(name, Type.COUNTER, tuple(labels.split()), meaning)


def _gauge(name: str, labels: str, meaning: str, merge: Merge = Merge.SUM) -> Metric:
    return Metric(name, Type.GAUGE, tuple(labels.split()), meaning, merge)


def _histogram(name: str, labels: str, meaning: str, bounds: tuple[float, ...] = DURATIONS) -> Metric:
    return Metric(name, Type.HISTOGRAM, tuple(labels.split()), meaning, bounds=bounds)


SERVER_DURATION = _histogram(
    "http_server_request_duration_seconds",
    "http_route http_request_method http_response_status_code",
    "Duration of requests from clients, from the head to the end of the response. http_route is empty if no route "
    "matched; the status is 499 if the client left before a response had begun. A WebSocket counts when it ends, with "
    "the status 101 and the duration of its handshake.",
)
SERVER_ACTIVE = _gauge(
    "http_server_active_requests",
    "",
    "Requests that are being answered, including those whose body is still to come. Streams (umbel_streams) are none.",
)
RESPONSES_CUT = _counter(
    "umbel_responses_cut_total",
    "http_route kind",
    "Responses that broke off after a status of success had been sent, and WebSockets that ended so: by a crash (kind "
    "internal) or a time limit (kind timeout). Those that the client or a stop of the server cut are left out.",
)
CLIENT_DURATION = _histogram(
    "http_client_request_duration_seconds",
    "upstream replica http_response_status_code",
    "Duration of attempts at a replica of an upstream, from its choice to the end of the response (of a streamed "
    "response: to its head). The status is empty if no response came. Attempts that the gateway itself cancelled are "
    'left out. Replicas beyond the first 64 of an upstream are counted as "other".',
)
ANSWERS = _counter(
    "umbel_answers_total",
    "route outcome",
    "Composed answers: complete, partial (a call failed, the answer was sent), failed (an error response), or "
    "cancelled (the client left, or the server stopped, before the answer was sent).",
)
CALLS = _counter(
    "umbel_calls_total",
    "route call outcome kind",
    "Calls of compositions: ok, partial (items of an each failed), failed, skipped, or cancelled (the client left, the "
    "server stopped, or the answer was decided without the call); kind is the kind of the failure.",
)
OWN_SECONDS = _histogram(
    "umbel_own_seconds",
    "route",
    "The gateway's own share of a composed answer: its duration minus that of its longest chain of calls.",
    OWN_TIMES,
)
ATTEMPTS = _counter(
    "umbel_attempts_total",
    "upstream cause",
    "Attempts that ended, by cause: first, retry, hedge, redirect, or mirror (of a copy of a request).",
)
MIRRORED = _counter(
    "umbel_mirrored_total",
    "upstream result",
    "Copies of requests to the upstream of a mirror: ok (a response below 500 came), failed, overflow (not made, since "
    "too many were in flight), or cancelled (the process stopped).",
)
AUTH_REQUESTS = _counter(
    "umbel_auth_requests_total",
    "kind outcome",
    "Requests for routes with auth, by kind of the credential (none, jwt, api-key or mtls) and by outcome: admitted, "
    "missing, invalid, expired, unknown-key, unknown-issuer, no-keys (the gateway could not verify the credential), "
    "foreign-origin, insufficient-scope or not-allowed.",
)
AUTH_KEYS = _gauge(
    "umbel_auth_keys",
    "name issuer",
    "Keys in use of a section [auth.NAME] (name), by issuer; of API keys issuer is empty.",
    Merge.MAX,
)
AUTH_KEYS_AGE = _gauge(
    "umbel_auth_keys_age_seconds",
    "name issuer",
    "Time since the keys in use were fetched or read. A file that is read at the start only has no value.",
    Merge.MAX,
)
AUTH_KEY_FETCHES = _counter(
    "umbel_auth_key_fetches_total", "name issuer result", "Fetches of the key set of an issuer: ok or failed."
)
AUTH_CACHED_TOKENS = _gauge("umbel_auth_cached_tokens", "name", "Verified tokens that are remembered.")
LIMIT_REQUESTS = _counter(
    "umbel_limit_requests_total",
    "limit outcome",
    "Requests, and attempts of upstreams with limits, that a section [limits.NAME] (limit) has decided about: admitted "
    "or refused. One that another limit of the same step refuses is not counted.",
)
LIMIT_WAITING = _gauge("umbel_limit_waiting", "limit", "Calls to upstreams that wait for a limit.")
LIMIT_DELAYED = _counter(
    "umbel_limit_delayed_total",
    "limit",
    "Calls to upstreams that had to wait for a limit, whether it has admitted them then or not.",
)
LIMIT_KEYS = _gauge("umbel_limit_keys", "limit", "Keys of a limit that are remembered, over all workers.")
LIMIT_EVICTIONS = _counter(
    "umbel_limit_evictions_total",
    "limit",
    "Keys of a limit that were forgotten with something spent, because there were max_keys: such a key begins anew.",
)
BREAKER_STATE = _gauge(
    "umbel_breaker_state",
    "upstream",
    "State of the circuit breaker: 0 closed, 1 half-open, 2 open.",
    Merge.MAX,
)
REPLICA_EJECTED = _gauge(
    "umbel_replica_ejected", "upstream replica", "Workers in which the replica is ejected from load balancing."
)
BULKHEAD_IN_USE = _gauge("umbel_bulkhead_in_use", "upstream", "Calls that hold a place of the bulkhead.")
BULKHEAD_WAITING = _gauge(
    "umbel_bulkhead_waiting", "upstream", "Calls that wait for a place of the bulkhead or for a limit."
)
BULKHEAD_LIMIT = _gauge("umbel_bulkhead_limit", "upstream", "Places of the bulkhead, configured or learned.")
UPSTREAM_STREAMS = _gauge(
    "umbel_upstream_streams", "upstream", "Responses that are open as streams, without a place of the bulkhead."
)
BUDGET_LEFT = _gauge(
    "umbel_retry_budget_left", "upstream", "Retries and hedges that the retry budget would grant at this moment."
)
BUDGET_DENIED = _counter(
    "umbel_retry_budget_denied_total", "upstream", "Retries and hedges that the retry budget has refused."
)
POOL_CONNECTIONS = _gauge(
    "umbel_pool_connections", "upstream state", "Connections to the upstream: connecting, active or idle."
)
IN_FLIGHT = _gauge("umbel_in_flight", "", "Requests in flight that count for umbel_capacity.")
CAPACITY = _gauge("umbel_capacity", "", "Requests that may be in flight ([server] max_in_flight), over all workers.")
STREAMS = _gauge(
    "umbel_streams",
    "",
    "Streams ([server] max_streams): open WebSockets, and responses of proxy routes that last long. They do not count "
    "in umbel_in_flight.",
)
CONNECTIONS = _gauge("umbel_connections", "", "Open connections of clients.")
REFUSED = _counter(
    "umbel_refused_total",
    "http_response_status_code",
    "Requests that the server answered in the application's place: malformed, over a limit, or when it was full.",
)
LOOP_LAG = _gauge(
    "umbel_loop_lag_seconds",
    "worker",
    "The highest lateness of the event loop's heartbeat within the last minute.",
    Merge.MAX,
)
LOG_DROPPED = _counter("umbel_log_dropped_total", "log", "Records that were lost: queue full, disk failing, too long.")
WORKERS = _gauge(
    "umbel_workers",
    "state",
    "Worker processes by state: starting, serving, draining, or silent (ready, but its heartbeat is late).",
)
WORKER_MEMORY = _gauge("umbel_worker_resident_memory_bytes", "worker", "Resident memory of the process.", Merge.MAX)
WORKER_STALE = _gauge(
    "umbel_worker_stale",
    "worker",
    "1 if the worker did not answer within 0.5 s, so that its last figures stand for it; else 0.",
    Merge.MAX,
)
WORKER_RESTARTS = _counter(
    "umbel_worker_restarts_total", "why", "Workers that were replaced after they ended, by the class of their end."
)
RELOADS = _counter("umbel_config_reload_total", "result", "Reloads of the configuration: ok or failed.")
TRACE_SPANS = _counter(
    "umbel_trace_spans_total",
    "result",
    "Spans of traces: exported (the collector has taken them), failed (they could not be sent), or dropped (the queue "
    "was full, too many requests were notable, or the process ended). No values without an export.",
)
SERIES_DROPPED = _counter(
    "umbel_series_dropped_total",
    "",
    "Values without a time series of their own: calls that are counted as other because their route has too many names "
    "of calls, and values of ended workers that the master leaves out because it holds too many time series.",
)

LAG_PERIOD_S = 60.0
"""For how many seconds a lateness counts in ``LOOP_LAG``: longer than a scraper's interval, so that it sees each."""

METRICS: tuple[Metric, ...] = (
    SERVER_DURATION,
    SERVER_ACTIVE,
    RESPONSES_CUT,
    IN_FLIGHT,
    CAPACITY,
    STREAMS,
    CONNECTIONS,
    REFUSED,
    ANSWERS,
    CALLS,
    OWN_SECONDS,
    CLIENT_DURATION,
    ATTEMPTS,
    MIRRORED,
    AUTH_REQUESTS,
    AUTH_KEYS,
    AUTH_KEYS_AGE,
    AUTH_KEY_FETCHES,
    AUTH_CACHED_TOKENS,
    LIMIT_REQUESTS,
    LIMIT_WAITING,
    LIMIT_DELAYED,
    LIMIT_KEYS,
    LIMIT_EVICTIONS,
    BREAKER_STATE,
    REPLICA_EJECTED,
    BULKHEAD_IN_USE,
    BULKHEAD_WAITING,
    BULKHEAD_LIMIT,
    UPSTREAM_STREAMS,
    BUDGET_LEFT,
    BUDGET_DENIED,
    POOL_CONNECTIONS,
    LOOP_LAG,
    LOG_DROPPED,
    WORKERS,
    WORKER_MEMORY,
    WORKER_STALE,
    WORKER_RESTARTS,
    RELOADS,
    TRACE_SPANS,
    SERIES_DROPPED,
)
"""All metrics, in the order of the output."""
BY_NAME = {metric.name: metric for metric in METRICS}
