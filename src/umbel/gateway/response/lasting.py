"""Streams that last: a record of their start, once they have lasted for the time that the recorder gives.

A stream is a response in parts or a WebSocket. Only streams have a timer; other requests cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ...core.events import RequestStarted

if TYPE_CHECKING:
    from ...net.timers import Timer
    from ..request_context import RequestContext


def stream_began(ctx: RequestContext) -> Timer | None:
    """Start the timer that records the start of a stream. The caller must cancel it at the stream's end.

    None if the recorder takes no such records, or the application does not run.
    """
    lasting_after: float | None = getattr(ctx.recorder, "lasting_after", None)
    runtime = ctx.serving.runtime
    if lasting_after is None or runtime is None:
        return None

    def record() -> None:
        origin = ctx.origin
        ctx.recorder.record(RequestStarted(ctx.facts, trio.current_time(), origin.client, origin.scheme, ctx.auth))

    return runtime.timers.add(trio.current_time() + lasting_after, record)


@contextmanager
def streaming(ctx: RequestContext) -> Iterator[None]:
    """Context manager around a stream: the request's start is recorded once the block has lasted ``lasting_after``."""
    timer = stream_began(ctx)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
