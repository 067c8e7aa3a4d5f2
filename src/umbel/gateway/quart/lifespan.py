"""The application between startup and shutdown, in a nursery of ours, whichever server runs it.

Quart makes one per server (``Umbel.asgi_lifespan_class``). Pools and logs live around it and end after the last
request; it must never end quietly while requests are still taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.utils import LifespanFailureError
from quart_trio.asgi import TrioASGILifespan

from ...core.errors import ConfigError
from ...logs import Redactor
from ...net.exception_groups import first_leaf, leaves, split_crash
from .. import crashes
from ..context import State
from ..runtime import open_runtime

if TYPE_CHECKING:
    from hypercorn.typing import LifespanScope

    from ..application import GatewayApplication


class Lifespan(TrioASGILifespan):
    """Runs the ASGI lifespan.

    * Startup: logs, then the upstreams, then the application's own hooks. An error in any of them is answered with
      ``lifespan.startup.failed`` and a sentence, after what had been opened is closed again.
    * Shutdown, in reverse: the application's hooks and background tasks, the pools, and the logs last.
    * If anything of it ends in between (a background task of the application that raised), ``/readyz`` turns 503 and
      ``LifespanFailureError`` is raised: the one exception after which Hypercorn does not go on serving without it.
    """

    def __init__(self, app: GatewayApplication, scope: LifespanScope) -> None:
        self.app: GatewayApplication = app

    async def __call__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Live until the server says shutdown. Cancelled, it closes everything and passes the cancel on."""
        app, serving = self.app, self.app.gateway_context.serving
        await receive()  # lifespan.startup: nothing else can come first
        serving.state = State.STARTING
        failed: BaseException | None = None
        try:
            async with open_runtime(app.gateway_config, app.given_transports, app.given_recorder) as runtime:
                serving.open(runtime)
                try:
                    await self._run(receive, send)
                finally:
                    app.route_table.close()
                    serving.close()
        except BaseException as error:
            crash, rest = split_crash(error)
            phase, serving.state = serving.state, State.STOPPED if crash is None else State.FAILED
            if crash is None or rest is not None or first_leaf(crash, SystemExit) is not None:
                # A cancel, or worse. The crash beside it, if there is one, has been recorded where it happened.
                raise
            if phase is State.STARTING:
                serving.config_error = first_leaf(crash, ConfigError)
            failed = crash
        if failed is None:
            serving.state = State.STOPPED
            await send({"type": "lifespan.shutdown.complete"})
            return
        # Out here, so that what the server raises has no cause whose text would reach its traceback with all secrets.
        await _report(phase, _said(failed, Redactor(app.gateway_config.logs.redact)), send)

    async def _run(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        app, serving = self.app, self.app.gateway_context.serving
        stopping = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._background, stopping)
                try:
                    await app.startup()
                    await self._open_routes()
                    serving.state = State.SERVING
                    await send({"type": "lifespan.startup.complete"})
                    await receive()  # lifespan.shutdown
                    serving.state = State.STOPPING
                    await app.shutdown()
                finally:
                    stopping.set()
        except BaseException as error:
            crash, rest = split_crash(error)
            # What a hook raised, Quart has handed to log_exception; what came beside a cancel it never saw.
            if crash is not None and (serving.state is State.SERVING or rest is not None):
                crashes.record(serving.recorder, "lifespan.crashed", crash)
            raise

    async def _open_routes(self) -> None:
        """Decide which requests go through Quart, now that the startup hooks have registered what they have to."""
        try:
            self.app.open_routes()
        except ConfigError:
            await self.app.shutdown()
            raise

    async def _background(self, stopping: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold the nursery that Quart calls ``app.nursery``.

        Apart from the one that runs the hooks: Quart-Trio ends the background tasks by a deadline on their nursery,
        which must not cut the application's shutdown hooks too.
        """
        async with trio.open_nursery() as nursery:
            self.app.nursery = nursery
            task_status.started()
            await stopping.wait()


def _said(crash: BaseException, redactor: Redactor) -> str:
    return redactor.text("; ".join(str(leaf) or type(leaf).__name__ for leaf in leaves(crash)))


async def _report(phase: State, message: str, send: Callable[[Any], Awaitable[None]]) -> None:
    """Tell the server, in the way that it does not swallow. Hypercorn raises from these sends."""
    if phase is State.STARTING:
        await send({"type": "lifespan.startup.failed", "message": message})
    elif phase is State.STOPPING:
        await send({"type": "lifespan.shutdown.failed", "message": message})
    else:
        raise LifespanFailureError("serving", message)
