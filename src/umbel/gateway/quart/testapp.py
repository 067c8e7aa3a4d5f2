"""``app.test_app()``: an application that runs inside of a test, on trio's mock clock too.

Quart-Trio's has three faults that a test meets: where the start or the stop fails or takes too long, its nursery stays
open, and trio reports a corrupted nursery stack instead of the reason; on an autojump clock the limit of the start is
over before the thread that opens the log files has run; and the answer of a test client must have at most ten parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import trio
from quart.testing.app import LifespanError
from quart_trio.testing import TrioClient, TrioTestApp
from quart_trio.testing.connections import TestHTTPConnection, TestWebsocketConnection

from ...net.exception_groups import raise_unwrapped

_THREAD_PAUSE = 0.0005
"""Seconds of real time that threads are left to themselves."""


class UmbelTestApp(TrioTestApp):
    """The application between ``lifespan.startup`` and ``lifespan.shutdown``; an async context manager.

    An exception of the block comes out as itself, after the application was stopped.

    While the application starts or stops, an autojump clock does not jump as long as threads work (those that open and
    close the log files): their time is real. ``startup_timeout`` and ``shutdown_timeout`` are seconds of trio's clock.

    Raises:
        LifespanError: the application refused to start, or its stop failed; the message says why.
        trio.TooSlowError: its start or its stop took too long.
    """

    _running: AbstractAsyncContextManager[None]
    _failure: str | None = None

    async def __aenter__(self) -> Self:
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._running.__aexit__(exc_type, exc_value, tb)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    await _while_threads_hold_the_clock(self.startup, self.startup_timeout)
                    self._check("start")
                    yield
                finally:
                    await self._stop()
        except BaseException as error:
            # One exception, whether the block, the start or the application raised it, is not a group's.
            raise_unwrapped(error)
            raise

    async def _stop(self) -> None:
        if not self._startup.is_set() or self._failure is not None:
            # It does not serve, so there is nothing that it could be asked to end.
            self._nursery.cancel_scope.cancel(reason="the application did not start")
            return
        await _while_threads_hold_the_clock(self.shutdown, self.shutdown_timeout)
        self._check("stop")

    def _check(self, phase: str) -> None:
        if self._failure is not None:
            raise LifespanError(f"the application did not {phase}: {self._failure}")

    async def _asgi_send(self, message: dict[str, Any]) -> None:
        """What the application says. Its failure is raised where the test waits, not in the application."""
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = message["message"]
            (self._startup if "startup" in message["type"] else self._shutdown).set()
            return
        await super()._asgi_send(message)


async def _while_threads_hold_the_clock(do: Callable[[], Awaitable[None]], limit: float) -> None:
    """Run ``do``; an autojump clock stands still in the meantime as long as threads work, ``limit`` seconds at most."""
    clock = trio.lowlevel.current_clock()
    if getattr(clock, "autojump_threshold", math.inf) == math.inf:
        await do()
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hold_the_clock, time.monotonic() + limit)
        await do()
        nursery.cancel_scope.cancel(reason="done")


async def _hold_the_clock(until: float) -> None:
    """Keep an autojump clock from jumping while threads work, until this time of ``time.monotonic``."""
    # Not at import: it is for tests alone.
    from trio.testing import active_thread_count, wait_all_tasks_blocked

    while time.monotonic() < until:
        # As long as a task waits here, the clock does not jump.
        await wait_all_tasks_blocked()
        pause = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if active_thread_count() or pause == math.inf:
            time.sleep(_THREAD_PAUSE)  # noqa: ASYNC251  # every task is blocked; what can go on is a thread
        else:
            await trio.sleep(max(0.0, pause))


class _Connection(TestHTTPConnection):
    """A request of a test client, whose answer may have any number of parts before the client reads it."""

    def __init__(self, app: Any, scope: Any, _preserve_context: bool = False) -> None:
        super().__init__(app, scope, _preserve_context)
        self._client_send, self._client_receive = trio.open_memory_channel[bytes | Exception](math.inf)
        self._server_send, self._server_receive = trio.open_memory_channel[dict[str, Any]](math.inf)

    async def disconnect(self) -> None:
        """Leave. It never waits: a cancel here would leave Quart-Trio's nursery open, and the stack corrupted."""
        _leave(self._server_send, "http.disconnect")


class _WebSocket(TestWebsocketConnection):
    """A WebSocket of a test client, which may be cancelled at any moment."""

    def __init__(self, app: Any, scope: Any) -> None:
        super().__init__(app, scope)
        self._server_send, self._server_receive = trio.open_memory_channel[dict[str, Any]](math.inf)

    async def disconnect(self) -> None:
        """Leave. It never waits, as above."""
        _leave(self._server_send, "websocket.disconnect")


def _leave(channel: trio.MemorySendChannel[dict[str, Any]], message: str) -> None:
    with suppress(trio.ClosedResourceError):  # The test has left already.
        channel.send_nowait({"type": message})
        channel.close()


class UmbelTestClient(TrioClient):
    """Quart-Trio's, for answers of any number of parts, and for requests that are cancelled at any moment."""

    http_connection_class = _Connection
    websocket_connection_class = _WebSocket  # type: ignore[assignment]  # as Quart-Trio's own is
