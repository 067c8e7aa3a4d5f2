"""ASGI lifespan of an application: opens the runtime at startup and closes it at shutdown.

Quart makes one ``Lifespan`` per server (``Umbel.asgi_lifespan_class``). The runtime (log files, upstream clients) is
open from startup until after the last request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.utils import LifespanFailureError
from quart_trio.asgi import TrioASGILifespan

from ...auth.first_keys import MissingKeysError, missing_keys, wait_for_first_keys
from ...config.schema.access.credential_names import logs_of
from ...core.console import say
from ...core.errors import ConfigError
from ...logs import Redactor
from ...net.exception_groups import first_leaf, leaves, split_crash
from ...server.lifespan import OWN_SERVER
from ..context import State
from ..operation import crashes
from ..operation.admin import gateway_admin
from ..proxy.websocket_routes import refuse_websockets
from ..runtime import open_runtime

if TYPE_CHECKING:
    from hypercorn.typing import LifespanScope

    from ..application import GatewayApplication


class Lifespan(TrioASGILifespan):
    """The ASGI lifespan of one server.

    * Startup opens the logs, then the upstreams, then runs the application's ``before_serving`` functions. After an
      error, everything that was opened is closed again, and ``lifespan.startup.failed`` is sent with the reason.
    * Shutdown runs in reverse order: ``after_serving`` functions and background tasks, upstreams, logs.
    * Under another server than Umbel's, startup fails if a route passes WebSocket connections on.
    * If a background task of the application raises while serving, ``/readyz`` answers 503 and ``LifespanFailureError``
      is raised. It is the only exception after which Hypercorn stops; after any other one it would serve without the
      runtime.
    """

    def __init__(self, app: GatewayApplication, scope: LifespanScope) -> None:
        self.app: GatewayApplication = app
        self._scope = scope

    async def __call__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Run until the server sends ``lifespan.shutdown``. A cancel closes everything and propagates."""
        app, serving = self.app, self.app.gateway_context.serving
        await receive()  # lifespan.startup: nothing else can come first
        serving.state = State.STARTING
        failed: BaseException | None = None
        try:
            given = app.given_transports, app.given_recorder, app.given_network
            async with open_runtime(app.gateway_config, *given) as runtime:
                serving.open(runtime)
                try:
                    async with gateway_admin(app):
                        await self._run(receive, send)
                finally:
                    app.route_table.close()
                    serving.close()
        except BaseException as error:
            crash, rest = split_crash(error)
            phase, serving.state = serving.state, State.STOPPED if crash is None else State.FAILED
            if crash is None or rest is not None or first_leaf(crash, SystemExit) is not None:
                # A cancel, SystemExit or the like. A crash in the same group has been recorded by ``_run``.
                raise
            if phase is State.STARTING:
                serving.config_error = first_leaf(crash, ConfigError)
                serving.keys_error = first_leaf(crash, MissingKeysError)
            failed = crash
        if failed is None:
            serving.state = State.STOPPED
            await send({"type": "lifespan.shutdown.complete"})
            return
        # Outside of the ``except`` block: an exception of the server must not have the crash as its context, because
        # the server would print the crash with all secrets in its text.
        await _report(phase, _said(failed, Redactor(logs_of(app.gateway_config).redact)), send)

    async def _run(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        app, serving = self.app, self.app.gateway_context.serving
        stopping = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._background, stopping)
                try:
                    await app.startup()
                    await self._open_routes()
                    await self._wait_for_keys()
                    serving.state = State.SERVING
                    await send({"type": "lifespan.startup.complete"})
                    await receive()  # lifespan.shutdown
                    serving.state = State.STOPPING
                    await app.shutdown()
                finally:
                    stopping.set()
        except BaseException as error:
            crash, rest = split_crash(error)
            # Quart has logged exceptions of startup and shutdown functions, but not one in a group with a cancel.
            if crash is not None and (serving.state is State.SERVING or rest is not None):
                crashes.record(serving.recorder, "lifespan.crashed", crash)
            raise

    async def _wait_for_keys(self) -> None:
        """Wait for the first keys of ``[auth]``, and say on stderr which have not come in time.

        Raises:
            MissingKeysError: keys have not come that a worker has which this one is to replace.
        """
        serving = self.app.gateway_context.serving
        if serving.runtime is None:
            return
        authenticators = serving.runtime.authenticators.values()
        await wait_for_first_keys(authenticators, self.app.gateway_config.supervisor.start_timeout)
        missing = list(missing_keys(authenticators))
        # Asked after the wait: the worker that was to be replaced may have died, and any worker is better than none.
        needed = [] if (may := serving.may_lack_keys) is None else [each for each in missing if each.name not in may]
        if needed:
            await self.app.shutdown()
            raise MissingKeysError(needed)
        for each in missing:
            say(f"warning: {each}; requests with its tokens get 503 until they have")

    async def _open_routes(self) -> None:
        """Decide which requests are answered before Quart; after the startup functions have registered everything."""
        try:
            if not _is_own_server(self._scope):
                refuse_websockets(self.app.gateway_config, _NEEDS_OWN_SERVER)
            self.app.open_routes()
        except ConfigError:
            await self.app.shutdown()
            raise

    async def _background(self, stopping: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """Open the nursery ``app.nursery`` for background tasks, until ``stopping`` is set and they have ended.

        It is separate from the nursery of the lifespan: Quart-Trio sets a deadline on ``app.nursery`` at shutdown,
        which must not cut the ``after_serving`` functions.
        """
        async with trio.open_nursery() as nursery:
            self.app.nursery = nursery
            task_status.started()
            await stopping.wait()


_NEEDS_OWN_SERVER = "needs Umbel's own server; serve with umbel serve, or with hypercorn without UMBEL_GUARD=off"


def _is_own_server(scope: Mapping[str, Any]) -> bool:
    """Whether the connections are served by Umbel's server: by itself, or under the ``hypercorn`` command.

    A server that is neither cannot be recognised, unless ``UMBEL_GUARD=off`` leaves the connections to Hypercorn.
    """
    if OWN_SERVER in (scope.get("extensions") or {}):
        return True
    # Imported here, because it loads the whole of Hypercorn.
    from ...server.hypercorn import installed

    return installed()


def _said(crash: BaseException, redactor: Redactor) -> str:
    return redactor.text("; ".join(str(leaf) or type(leaf).__name__ for leaf in leaves(crash)))


async def _report(phase: State, message: str, send: Callable[[Any], Awaitable[None]]) -> None:
    """Report a failure of the lifespan to the server. Hypercorn raises from ``send`` here."""
    if phase is State.STARTING:
        await send({"type": "lifespan.startup.failed", "message": message})
    elif phase is State.STOPPING:
        await send({"type": "lifespan.shutdown.failed", "message": message})
    else:
        raise LifespanFailureError("serving", message)
