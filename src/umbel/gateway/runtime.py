"""What serving needs that has a life of its own: the recorder and the upstreams' stacks, opened and closed in order.

Opened by ``lifespan.py`` around all of an application's requests. Frozen while it lives; it is not there before
startup nor after shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from ..config.schema import Config
from ..events import Recorder
from ..logs import open_recorder
from ..upstream.stack import build


@dataclass(frozen=True, slots=True)
class Runtime:
    """The open ends that every request uses."""

    recorder: Recorder
    transports: Mapping[str, httpx.AsyncBaseTransport]
    """One per upstream name."""


@asynccontextmanager
async def open_runtime(
    config: Config, transports: Mapping[str, httpx.AsyncBaseTransport], recorder: Recorder | None
) -> AsyncIterator[Runtime]:
    """Open what ``config`` asks for, except what is given: those belong to the caller, who closes them.

    Closed in reverse order of data, so the records of the last call are still written.

    Raises:
        ConfigError: the log files cannot be opened.
        ValueError: an upstream's TLS files cannot be used.
    """
    async with AsyncExitStack() as stack:
        if recorder is None:
            recorder = await stack.enter_async_context(open_recorder(config.logs))
        opened = dict(transports)

        for name, upstream in config.upstreams.items():
            if name not in opened:
                opened[name] = await stack.enter_async_context(build(name, upstream, base_dir=None))
        yield Runtime(recorder, opened)
