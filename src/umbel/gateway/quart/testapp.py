"""``app.test_app()``: runs an application within a test, also on trio's mock clock.

It corrects three faults of Quart-Trio's test application:

- if startup or shutdown fails or times out, Quart-Trio leaves its nursery open, and trio reports a corrupted nursery
  stack instead of the reason;
- on an autojump clock the startup timeout expires before the thread that opens the log files has run;
- a response in more than ten parts blocks the test client.
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
from ...server.lifespan import OWN_SERVER

_THREAD_PAUSE = 0.0005
"""Seconds of real time between two checks whether threads still work."""


class UmbelTestApp(TrioTestApp):
    """Async context manager: the application is started, serves during the block, and is stopped.

    An exception of the block propagates after the application was stopped, without a group around it.

    During startup and shutdown an autojump clock does not jump while threads work, such as those that open the log
    files. ``startup_timeout`` and ``shutdown_timeout`` are seconds of trio's clock.

    Raises:
        LifespanError: startup or shutdown failed; the message says why.
        trio.TooSlowError: startup or shutdown timed out.
    """

    _running: AbstractAsyncContextManager[None]
    _failure: str | None = None

    async def startup(self) -> None:
        """Start the application, as Umbel's own server does: its routes may pass WebSocket connections on."""
        scope: Any = {"type": "lifespan", "asgi": {"spec_version": "2.0"}, "extensions": {OWN_SERVER: {}}}
        app: Any = self.app
        self._nursery.start_soon(app, scope, self._asgi_receive, self._asgi_send)
        await self._app_send_channel.send({"type": "lifespan.startup"})
        await _within(self.startup_timeout, self._startup, "start")

    async def shutdown(self) -> None:
        """Stop the application."""
        await self._app_send_channel.send({"type": "lifespan.shutdown"})
        await _within(self.shutdown_timeout, self._shutdown, "stop")

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
            # A single exception of the block, of startup or of the application is raised without its group.
            raise_unwrapped(error)
            raise

    async def _stop(self) -> None:
        if not self._startup.is_set() or self._failure is not None:
            # The application does not serve, so there is no shutdown to request.
            self._nursery.cancel_scope.cancel(reason="the application did not start")
            return
        await _while_threads_hold_the_clock(self.shutdown, self.shutdown_timeout)
        self._check("stop")

    def _check(self, phase: str) -> None:
        if self._failure is not None:
            raise LifespanError(f"the application did not {phase}: {self._failure}")

    async def _asgi_send(self, message: dict[str, Any]) -> None:
        """Take a message of the application. A failure is raised in the test, not in the application."""
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = message["message"]
            (self._startup if "startup" in message["type"] else self._shutdown).set()
            return
        await super()._asgi_send(message)


async def _within(limit: float, event: trio.Event, phase: str) -> None:
    """Wait for ``event``, for at most ``limit`` seconds."""
    with trio.move_on_after(limit):
        await event.wait()
        return
    raise trio.TooSlowError(
        f"the application did not {phase} within {limit:g} s: a function of before_serving, while_serving or "
        "after_serving has not returned"
    )


async def _while_threads_hold_the_clock(do: Callable[[], Awaitable[None]], limit: float) -> None:
    """Await ``do()``. While threads work, an autojump clock does not jump, for at most ``limit`` real seconds."""
    clock = trio.lowlevel.current_clock()
    if getattr(clock, "autojump_threshold", math.inf) == math.inf:
        await do()
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hold_the_clock, time.monotonic() + limit)
        await do()
        nursery.cancel_scope.cancel(reason="done")


async def _hold_the_clock(until: float) -> None:
    """Prevent an autojump clock from jumping while threads work, until ``time.monotonic()`` is ``until``."""
    # Imported here because only tests need it.
    from trio.testing import active_thread_count, wait_all_tasks_blocked

    while time.monotonic() < until:
        # The clock does not jump while a task waits here.
        await wait_all_tasks_blocked()
        pause = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if active_thread_count() or pause == math.inf:
            time.sleep(_THREAD_PAUSE)  # noqa: ASYNC251  # every task is blocked; only threads can make progress
        else:
            await trio.sleep(max(0.0, pause))


class _Connection(TestHTTPConnection):
    """HTTP request of a test client with an unbounded queue for the parts of the response."""

    def __init__(self, app: Any, scope: Any, _preserve_context: bool = False) -> None:
        super().__init__(app, scope, _preserve_context)
        self._client_send, self._client_receive = trio.open_memory_channel[bytes | Exception](math.inf)
        self._server_send, self._server_receive = trio.open_memory_channel[dict[str, Any]](math.inf)

    async def disconnect(self) -> None:
        """Disconnect without waiting: a cancel here would leave Quart-Trio's nursery open."""
        _leave(self._server_send, "http.disconnect")


class _WebSocket(TestWebsocketConnection):
    """WebSocket of a test client, which may be cancelled at any time."""

    def __init__(self, app: Any, scope: Any) -> None:
        super().__init__(app, scope)
        self._server_send, self._server_receive = trio.open_memory_channel[dict[str, Any]](math.inf)

    async def disconnect(self) -> None:
        """Disconnect without waiting: a cancel here would leave Quart-Trio's nursery open."""
        _leave(self._server_send, "websocket.disconnect")


def _leave(channel: trio.MemorySendChannel[dict[str, Any]], message: str) -> None:
    with suppress(trio.ClosedResourceError):  # The test has disconnected already.
        channel.send_nowait({"type": message})
        channel.close()


class UmbelTestClient(TrioClient):
    """Quart-Trio's test client, for responses in any number of parts and requests that are cancelled at any time."""

    http_connection_class = _Connection
    websocket_connection_class = _WebSocket  # type: ignore[assignment]  # Quart-Trio's own needs the same ignore
