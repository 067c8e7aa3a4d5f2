"""What serving needs that has a life of its own: the recorder and the upstreams' stacks, opened and closed in order.

Opened by ``lifespan.py`` around all of an application's requests. Frozen while it lives; it is not there before
startup nor after shutdown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from ..config.schema import Config, KeyPath
from ..errors import ConfigError, ConfigProblem
from ..events import Recorder
from ..logs import LOGGERS, Redactor, bridge, open_recorder, redacted_console
from ..upstream.stack import StackError, build


@dataclass(frozen=True, slots=True)
class Runtime:
    """The open ends that every request uses."""

    recorder: Recorder
    transports: Mapping[str, httpx.AsyncBaseTransport]
    """One per upstream name."""


def overrides_in(config: Config, upstream: str, *, in_code: bool = False) -> frozenset[str]:
    """The policies that some call to ``upstream`` sets for itself, so that its stack has their layers.

    What calls are made ``in_code`` is not known before they are made, so they may set any: the layers are there then,
    and where nobody uses them the three together cost a call a few microseconds.
    """
    if in_code:
        return _OVERRIDABLE
    calls = [call for route in config.routes for call in route.calls.values() if call.upstream == upstream]
    return frozenset(policy for policy in _OVERRIDABLE if any(getattr(call, policy) is not None for call in calls))


_OVERRIDABLE = frozenset({"retry", "hedge", "coalesce"})


@asynccontextmanager
async def open_runtime(
    config: Config,
    transports: Mapping[str, httpx.AsyncBaseTransport],
    recorder: Recorder | None,
    *,
    in_code: bool = False,
) -> AsyncIterator[Runtime]:
    """Open what ``config`` asks for, except what is given: those belong to the caller, who closes them.

    ``in_code``: whether calls are made in code too.

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
        opened = dict(transports)

        for name, upstream in config.upstreams.items():
            if name not in opened:
                overrides = overrides_in(config, name, in_code=in_code)
                try:
                    own = build(name, upstream, overrides=overrides, recorder=recorder)
                except StackError as error:
                    at: KeyPath = ("upstreams", name, *error.key)
                    key = ".".join(map(str, at))
                    raise ConfigError([ConfigProblem(config.where(at), None, key, error.reason)]) from error
                opened[name] = await stack.enter_async_context(own)
        yield Runtime(recorder, opened)
