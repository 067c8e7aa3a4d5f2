"""What is open while an application serves: the recorder and the upstreams' clients, opened and closed in order.

Opened around all of an application's requests. Frozen while it lives; it is not there before startup nor after
shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from ..config.schema.sections import Config, KeyPath, Upstream
from ..core.call import Caller
from ..core.errors import ConfigError, ConfigProblem
from ..core.events import Recorder
from ..core.model import RequestFacts
from ..core.transport_caller import caller_of
from ..logs import LOGGERS, Redactor, bound, bridge, open_recorder, redacted_console
from ..net.epoll import AnyReader, new_reader
from ..net.timers import TimerQueue
from ..upstream.background_tasks import BackgroundNursery
from ..upstream.calls.bulkhead import OverloadManager
from ..upstream.from_config import UpstreamConfigError, build
from .request_context import names_of


@dataclass(frozen=True, slots=True)
class Runtime:
    """The open ends that every request uses."""

    recorder: Recorder
    callers: Mapping[str, Caller]
    """One per upstream name."""
    overload_manager: OverloadManager
    """What its upstreams share."""
    reader: AnyReader
    """Watches their sockets."""
    timers: TimerQueue
    """Runs for as long as this is open."""


@asynccontextmanager
async def open_runtime(
    config: Config,
    transports: Mapping[str, httpx.AsyncBaseTransport],
    recorder: Recorder | None,
) -> AsyncIterator[Runtime]:
    """Open what ``config`` asks for, except what is given: those belong to the caller, who closes them.

    All upstreams share one socket reader and one timer queue.

    Closed in reverse order of data, so the records of the last call are still written.

    Raises:
        ConfigError: the log files cannot be opened, or an upstream's TLS files cannot be used (any more: the loader has
            looked at them too).
    """
    async with AsyncExitStack() as stack:
        if recorder is None:
            recorder = opened_recorder = await stack.enter_async_context(open_recorder(config.logs))
            stack.enter_context(bridge(opened_recorder.app, *LOGGERS, repeats=False))
        stack.enter_context(redacted_console(Redactor(config.logs.redact)))
        own = BackgroundNursery("the upstreams' tasks")
        await own.open()
        stack.push_async_callback(own.close)
        reader, timers = new_reader(), TimerQueue()
        overload_manager = OverloadManager(config.server.max_in_flight)
        own.start_soon(reader.run)
        own.start_soon(timers.run)
        callers: dict[str, Caller] = {}
        for name, upstream in config.upstreams.items():
            if name in transports:
                callers[name] = caller_of(transports[name], _url_of(upstream), _bound)
                continue
            try:
                client = build(
                    name, upstream, recorder=recorder, reader=reader, timers=timers, overload_manager=overload_manager
                )
            except UpstreamConfigError as error:
                at: KeyPath = ("upstreams", name, *error.key)
                key = ".".join(map(str, at))
                raise ConfigError([ConfigProblem(config.where(at), None, key, error.reason)]) from error
            callers[name] = await stack.enter_async_context(client)
        callers |= {n: caller_of(each, around=_bound) for n, each in transports.items() if n not in callers}
        yield Runtime(recorder, callers, overload_manager, reader, timers)


def _bound(facts: RequestFacts) -> AbstractContextManager[None]:
    """What a foreign transport logs says which request it belongs to."""
    return bound(**names_of(facts))


def _url_of(upstream: Upstream) -> str:
    """The base URL that a foreign transport sees."""
    url = upstream.replicas[0].url.removeprefix("dns+")
    return url if url.startswith("http") else "http://localhost"
