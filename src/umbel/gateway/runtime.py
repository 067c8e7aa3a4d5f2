"""Runtime: the recorder and the clients of the upstreams, which are open while an application serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import httpx

from ..auth.authenticator import Authenticator
from ..auth.from_config import open_authenticators
from ..config.schema.access.credential_names import logs_of
from ..config.schema.sections import Config, KeyPath, Upstream
from ..core.call import Caller
from ..core.errors import ConfigError, ConfigProblem
from ..core.events import Recorder
from ..core.http.probe_paths import PROBES
from ..core.httpx_calls.transport_caller import caller_of
from ..core.model import RequestFacts
from ..limits.limiter import Limiter, limiters_of
from ..limits.machine_sharing import shared as shared_by_workers
from ..logs import LOGGERS, Redactor, bound, bridge, open_recorder, redacted_console
from ..net.epoll import Reader, new_reader
from ..net.timers import TimerQueue
from ..observe.request_counts import CountingRecorder
from ..observe.traces.export import SpanExport
from ..upstream.background_tasks import BackgroundNursery
from ..upstream.calls.bulkhead import OverloadManager
from ..upstream.from_config import UpstreamConfigError, build, build_mirror
from ..upstream.limit_queue import LimitQueue
from ..upstream.mirrors import Mirrors
from ..upstream.network import Network
from .operation.tracing import exported_traces


@dataclass(frozen=True, slots=True)
class Runtime:
    """Recorder, callers and shared parts of the upstreams. Open from startup to shutdown; never changed in between."""

    recorder: CountingRecorder
    """Takes all records, and counts requests."""
    callers: Mapping[str, Caller]
    """The callers by name of the upstream."""
    overload_manager: OverloadManager
    """Decides which waiting call is refused when the server is full."""
    reader: Reader
    """The reader of the upstreams' sockets."""
    timers: TimerQueue
    """The timer queue of all calls."""
    mirrors: Mirrors
    """Sends the copies of requests."""
    authenticators: Mapping[str, Authenticator]
    """Verify the credentials of requests, by name of the section ``[auth.NAME]``."""
    limiters: Mapping[str, Limiter]
    """Decide about requests by limits, by name of the section ``[limits.NAME]``."""
    redactor: Redactor
    """Hides secrets in texts for operators."""
    spans: SpanExport | None
    """Exports the spans of requests; None: no traces are exported."""


@asynccontextmanager
async def open_runtime(
    config: Config,
    transports: Mapping[str, httpx.AsyncBaseTransport],
    given: Recorder | None,
    network: Network | None = None,
) -> AsyncIterator[Runtime]:
    """Context manager: open the recorder and the upstreams of ``config``, and close them at the end.

    The upstreams are closed before the recorder, so that the records of the last calls are still written. All upstreams
    share one socket reader and one timer queue.

    Args:
        config: the configuration.
        transports: httpx transports that replace clients, by name of the upstream. They are not closed here. A name
            that ``config`` lacks is another upstream.
        given: the recorder that replaces the configured log files; None: open these.
        network: carries the connections of the upstreams in place of sockets; no traces are exported then.

    Raises:
        ConfigError: the log files cannot be opened, or the TLS files of an upstream cannot be used any more.
    """
    logs = logs_of(config)
    async with AsyncExitStack() as stack:
        if given is None:
            opened_recorder = await stack.enter_async_context(open_recorder(logs, {*PROBES, *config.server.probes}))
            stack.enter_context(bridge(opened_recorder.app, *LOGGERS, repeats=False))
            given = opened_recorder
        redactor = Redactor(logs.redact)
        recorder = CountingRecorder(given, redactor)
        stack.enter_context(redacted_console(redactor))
        # Before the upstreams, so that it ends after the last requests.
        spans = None if network else await stack.enter_async_context(exported_traces(config, recorder))
        own = BackgroundNursery("the upstreams' tasks")
        await own.open()
        stack.push_async_callback(own.close)
        reader, timers = new_reader() if network is None else network.reader, TimerQueue()
        overload_manager = OverloadManager(config.server.max_in_flight)
        own.start_soon(reader.run)
        own.start_soon(timers.run)
        limiters = limiters_of(config)
        stack.enter_context(shared_by_workers(limiters.values()))
        shared = _Shared(recorder, reader, timers, overload_manager, network)
        callers, copying = await _open_callers(stack, config, transports, shared, limiters)
        # Entered last, so that it is left first: a copy in flight is cancelled before its client is closed.
        mirrors = await stack.enter_async_context(Mirrors(copying, recorder))
        authenticators = await stack.enter_async_context(open_authenticators(config, callers, recorder))
        yield Runtime(
            recorder, callers, overload_manager, reader, timers, mirrors, authenticators, limiters, redactor, spans
        )


class _Shared(NamedTuple):
    """What the clients of all upstreams share."""

    recorder: Recorder
    reader: Reader
    timers: TimerQueue
    overload_manager: OverloadManager
    network: Network | None


async def _open_callers(
    stack: AsyncExitStack,
    config: Config,
    transports: Mapping[str, httpx.AsyncBaseTransport],
    shared: _Shared,
    limiters: Mapping[str, Limiter],
) -> tuple[dict[str, Caller], dict[str, Caller]]:
    """Make the callers of the upstreams, and those of their copies, by name; clients are entered into ``stack``."""
    callers: dict[str, Caller] = {}
    copying: dict[str, Caller] = {}
    mirrored = mirrored_upstreams(config)
    # Each limit has one queue, so that calls to all upstreams that have it take their turns in one order.
    queues = {name: LimitQueue(limiter) for name, limiter in limiters.items()}
    recorder, reader, timers, overload_manager, network = shared
    for name, upstream in config.upstreams.items():
        if name in transports:
            callers[name] = caller_of(transports[name], _url_of(upstream), _bound)
            if name in mirrored:
                copying[name] = callers[name]
            continue
        with _errors_located(config, name):
            client = build(
                name,
                upstream,
                recorder=recorder,
                reader=reader,
                timers=timers,
                overload_manager=overload_manager,
                limits=[queues[limit] for limit in upstream.limits],
                network=network,
            )
        callers[name] = await stack.enter_async_context(client)
        if name in mirrored:
            with _errors_located(config, name):
                client = build_mirror(name, upstream, recorder=recorder, reader=reader, timers=timers, network=network)
            copying[name] = await stack.enter_async_context(client)
    callers |= {n: caller_of(each, around=_bound) for n, each in transports.items() if n not in callers}
    return callers, copying


@contextmanager
def _errors_located(config: Config, name: str) -> Iterator[None]:
    """Context manager: raise an ``UpstreamConfigError`` about the upstream ``name`` as a ConfigError with its place."""
    try:
        yield
    except UpstreamConfigError as error:
        at: KeyPath = ("upstreams", name, *error.key)
        key = ".".join(map(str, at))
        raise ConfigError([ConfigProblem(config.where(at), None, key, error.reason)]) from error


def mirrored_upstreams(config: Config) -> frozenset[str]:
    """The upstreams that get copies of requests."""
    mirrors = [call.mirror for route in config.routes for call in route.calls.values()]
    mirrors += [route.proxy.mirror for route in config.routes if route.proxy is not None]
    return frozenset(mirror.upstream for mirror in mirrors if mirror is not None)


def _bound(facts: RequestFacts) -> AbstractContextManager[None]:
    """Context manager that adds the request's ids to the log records of a foreign transport."""
    return bound(**facts.log_fields)


def _url_of(upstream: Upstream) -> str:
    """The base URL of an upstream for a foreign transport."""
    url = upstream.replicas[0].url.removeprefix("dns+")
    return url if url.startswith("http") else "http://localhost"
