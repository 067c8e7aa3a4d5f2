"""ASGI lifespan: startup of the application before the first request, and shutdown after the last one.

An application that raises an ``Exception``, or returns, before it has sent ``lifespan.startup.complete`` has no
lifespan and is served without one (ASGI lifespan specification). A later exception ends the server, because the
application's resources are gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from ..net.exception_groups import first_leaf, split_application_crash
from .limits.fairness import CountedCalls

OWN_SERVER = "umbel.server"
"""The extension of a lifespan scope by which an application knows that Umbel's own server serves it."""
_log = logging.getLogger("umbel.server")


class LifespanTooSlowError(LifespanTimeoutError):
    """The application's startup or shutdown took longer than ``startup_timeout`` or ``shutdown_timeout``."""

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(stage)
        done = "started" if stage == "startup" else "stopped"
        self.args = (
            f"the application has not {done} within {stage}_timeout, which is {seconds:g} s; "
            f"raise it, or find out what the {stage} waits for",
        )


class _Lifespan(CountedCalls):
    """One call of the application with a lifespan scope."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._asked = 0
        """Calls of ``receive``."""
        self.started = trio.Event()
        """Set when the startup is complete, or the application has no lifespan."""
        self.stopping = trio.Event()
        """Set when the shutdown shall begin."""
        self.stopped = trio.Event()
        """Set when the shutdown is complete, or the application has returned."""

    async def run(self) -> None:
        """Call the application, and set the events.

        Raises:
            LifespanFailureError: the application reported a failure, or raised after its startup.
        """
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self._state, "extensions": {OWN_SERVER: {}}}
        try:
            await self._app(scope, self.receive, self.send)
        except BaseException as error:
            crash, rest = split_application_crash(error)
            if crash is None or rest is not None or isinstance(crash, LifespanFailureError | SystemExit):
                raise
            if (failure := first_leaf(crash, LifespanFailureError)) is not None:
                raise failure from error
            if self.started.is_set() or not isinstance(crash, Exception):
                stage = "serving" if self.started.is_set() else "startup"
                raise LifespanFailureError(stage, f"{type(crash).__name__}: {crash}") from error
            # ASGI: an exception before the startup is complete means that the application does not support lifespan.
            _log.info(
                "the application has no lifespan: it raised before its startup was complete. It is served without one "
                "(%s: %s)",
                type(crash).__name__,
                crash,
            )
        finally:
            self.started.set()
            self.stopped.set()

    async def receive(self) -> dict[str, str]:
        """ASGI's ``receive``: startup, then shutdown when it is due. A third call waits until cancelled."""
        await self.count_call()
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        if self._asked > 2:
            await trio.sleep_forever()
        await self.stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Any) -> None:
        """ASGI's ``send``.

        Raises:
            LifespanFailureError: the message reports a failure.
            RuntimeError: the type of the message is unknown.
        """
        await self.count_call()
        match message["type"]:
            case "lifespan.startup.complete":
                self.started.set()
            case "lifespan.shutdown.complete":
                self.stopped.set()
            case "lifespan.startup.failed":
                raise LifespanFailureError("startup", message.get("message", ""))
            case "lifespan.shutdown.failed":
                raise LifespanFailureError("shutdown", message.get("message", ""))
            case other:
                raise RuntimeError(f"the application sent {other!r}, which is no message of a lifespan")


@asynccontextmanager
async def running_lifespan(app: Any, config: Config, state: dict[str, Any]) -> AsyncIterator[None]:
    """Start the application, run the block, and stop the application. ``state`` is the lifespan state, which it fills.

    If the block raises or is cancelled, the application is cancelled instead of stopped.

    Raises:
        LifespanFailureError: the startup or the shutdown failed, or the application raised during the block.
        LifespanTooSlowError: the startup or the shutdown took longer than ``startup_timeout`` or ``shutdown_timeout``.

    Both are raised inside an exception group, as by a nursery.
    """
    lifespan = _Lifespan(app, state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lifespan.run)
        await _within(config.startup_timeout, lifespan.started, "startup")
        yield
        lifespan.stopping.set()
        await _within(config.shutdown_timeout, lifespan.stopped, "shutdown")
        nursery.cancel_scope.cancel(reason="the lifespan is over")


async def _within(seconds: float, event: trio.Event, stage: str) -> None:
    """Wait for ``event``, and raise ``LifespanTooSlowError`` for ``stage`` after ``seconds``."""
    try:
        with trio.fail_after(seconds):
            await event.wait()
    except trio.TooSlowError as error:
        raise LifespanTooSlowError(stage, seconds) from error
