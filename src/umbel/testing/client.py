"""The client of a gateway under test: httpx's client, with the traces of its requests and what upstreams received."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import trio
from trio.testing import wait_all_tasks_blocked

from ..core.diagnostics.redact import Redactor
from ..core.events import Event, LogMessage, Recorder, RequestEnded
from ..observe.timeline import Timeline, timeline_of
from ..upstream.pool.dial import Dial
from ..upstream.pool.pool import Pool
from .received import UpstreamRequest
from .trace import RequestTrace

if TYPE_CHECKING:
    from ..gateway.app import Umbel
    from .upstreams import ScriptedUpstreams

_log = logging.getLogger("umbel.testing")
_LEVELS = logging.getLevelNamesMapping()
_SETTLE_SECONDS = 1.0
"""Bound on the wait for the gateway after a response or a cancel, in seconds of the virtual clock."""


class TimelineRecorder:
    """Keeps the timeline of each request, and passes every event on.

    Messages go to Python's logger ``umbel.testing``, with the traceback of an exception, so that pytest shows them.

    Args:
        inner: another recorder that takes all events too; None: there is none.
    """

    takes_attempts = False

    def __init__(self, inner: Recorder | None) -> None:
        self._inner = inner
        self._redactor = Redactor()
        self._began = trio.current_time()
        self.timelines: list[Timeline] = []
        """The timelines of all requests in the order of their ends; ``received`` counts from the start."""

    def record(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, RequestEnded):
            self.timelines.append(timeline_of(event, self._redactor, epoch=-self._began))
        elif isinstance(event, LogMessage):
            _log.log(_LEVELS[event.level.upper()], "%s: %s", event.event, event.message, exc_info=event.error)
        if self._inner is not None:
            self._inner.record(event)


class GatewayClient(httpx.AsyncClient):
    """``httpx.AsyncClient`` for a gateway under test. A path is enough as URL: ``await client.get("/users/42")``.

    It has no timeouts of its own. When a response has been read or closed, or its request was cancelled, everything has
    happened that happens at the same moment of the virtual clock: the losers of hedges are cancelled, and the request
    has its trace.
    """

    def __init__(
        self, app: Umbel, dial: Dial, recorder: TimelineRecorder, upstreams: ScriptedUpstreams, base_url: str
    ) -> None:
        super().__init__(transport=_SettlingPool(dial=dial), base_url=base_url, timeout=None, trust_env=False)
        self.app = app
        """The application under test."""
        self._recorder = recorder
        self._upstreams = upstreams

    def trace(self) -> RequestTrace:
        """The trace of the request that ended last.

        Raises:
            LookupError: no request has ended yet.
        """
        if not self._recorder.timelines:
            raise LookupError("no request has ended yet; a response must be read or closed before it has a trace")
        return RequestTrace.of(self._recorder.timelines[-1])

    def traces(self) -> list[RequestTrace]:
        """The traces of all requests, in the order of their ends."""
        return [RequestTrace.of(each) for each in self._recorder.timelines]

    def received(self, upstream: str) -> Sequence[UpstreamRequest]:
        """The requests that a scripted upstream got, in the order of their arrival.

        Raises:
            KeyError: the test has no such upstream.
        """
        return self._upstreams.received(upstream)


class _SettlingPool(Pool):
    """A pool that waits at the end of each response until all other tasks wait."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``, and return the response as soon as its head is read."""
        try:
            response = await super().handle_async_request(request)
        except BaseException:
            await _settle()
            raise
        if isinstance(response.stream, httpx.ByteStream):
            await wait_all_tasks_blocked()
        else:
            response.stream = _SettlingStream(response.stream)
        return response


class _SettlingStream(httpx.AsyncByteStream):
    """The body of a response, which waits when it is closed until all other tasks wait."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._inner.__aiter__()  # type: ignore[no-any-return]  # httpx types the stream as any of its kinds

    async def aclose(self) -> None:
        """Close the body."""
        try:
            await self._inner.aclose()
        finally:
            await _settle()


async def _settle() -> None:
    """Wait until all other tasks wait, also in a cancelled scope: then the gateway has seen that the client left."""
    with trio.move_on_after(_SETTLE_SECONDS, shield=True):
        await wait_all_tasks_blocked()
