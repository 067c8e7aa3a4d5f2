"""``Umbel``: a QuartTrio whose routes can be compositions.

The application object that every way to start serves. It ties the other files of this package together and holds no
rule of its own about HTTP.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from ..composition.plan import compiler
from ..composition.request.code_request import UpstreamDefaults
from ..config.loading.load import load
from ..config.schema.sections import Config
from ..core.console import announce
from ..core.events import LogMessage, Recorder
from ..core.inbound import InboundApplication, InboundRequest, RequestHead
from ..logs import crashes_on_stderr
from ..net.exception_groups import raise_unwrapped
from ..server.asgi import make_scope
from ..server.handler import serve_asgi
from ..server.process import gc_tuning
from ..server.process.loop_watchdog import EVENT, watched_loop
from ..server.process.process_signals import no_deadly_signals
from ..server.process.settings import hypercorn_config
from ..server.serving import serve
from .checks import CHECKS
from .compose import ComposeView
from .handler_cycle import HandlerCycle
from .quart.asgi_request import AsgiRequest, Send, target_of
from .quart.hooks import find_hooks, parts_of, replaces_entrance
from .quart.lifespan import Lifespan
from .quart.quart_body import UmbelRequest
from .quart.quart_context import QuartDispatch, make_request_context
from .quart.quart_errors import ErrorHandling
from .quart.quart_request import QuartRequest
from .quart.testapp import UmbelTestApp, UmbelTestClient
from .quart.websocket import WebsocketConnection
from .quart.wrong_loop import refuse
from .request.request_fields import Field
from .request_cycle import PlanCycle
from .response.answer import AnswerRules, Expose
from .response.reply import KRAKEND_COMPLETED
from .route_table import RouteTable, UmbelMap, refuse_registration
from .routes import RouteView

if TYPE_CHECKING:
    import httpx

    from .compose import Handler
    from .request_cycle import RequestCycle
    from .route_table import Match

_KEPT = "_quart._preserve_context"
"""Set in a scope by Quart's test client, for tests that look at the request's context afterwards."""

HandlerT = TypeVar("HandlerT", bound="Handler")


class Umbel(ErrorHandling, InboundApplication):
    """A Quart-Trio application that composes upstream calls into answers.

    Blueprints, hooks, error handlers, plain routes and websockets are Quart's. On top of them:

    * each route of ``config`` is a Quart rule whose view runs its plan;
    * ``@app.compose`` does the same for a handler in Python;
    * every error that no handler of the application takes is a problem document (RFC 9457);
    * every request leaves exactly one record, and nothing running.

    ``transports`` replaces the clients of the upstreams it names by transports of the caller's (who closes them), such
    as ``httpx.MockTransport``; ``recorder`` replaces the files of ``[logs]``. Both are there for tests and for
    embedding.
    """

    request_class = UmbelRequest
    url_map_class = UmbelMap
    asgi_http_class = QuartRequest  # type: ignore[assignment]  # Quart types it for any app; ours needs a context
    asgi_websocket_class = WebsocketConnection  # type: ignore[assignment]  # as above
    asgi_lifespan_class = Lifespan  # type: ignore[assignment]  # as above
    test_app_class = UmbelTestApp
    test_client_class = UmbelTestClient  # type: ignore[assignment]  # as in Quart-Trio

    _is_wrapped = False
    """Whether the application's class has an ``asgi_app`` or ``__call__`` of its own, which sees every request."""

    def __init__(
        self,
        import_name: str,
        config: Config | None = None,
        *,
        transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
        recorder: Recorder | None = None,
        **quart_options: Any,
    ) -> None:
        """Make the application and the routes of ``config``.

        Raises:
            ConfigError: a route of ``config`` cannot be planned.
        """
        self.route_table = RouteTable()
        config = config if config is not None else Config()
        super().__init__(import_name, config, transports or {}, recorder, **quart_options)
        self._dispatch = QuartDispatch(
            self.app_context, partial(make_request_context, self), self.finalize_view, self.answer_exception
        )
        for index in range(len(config.routes)):
            self._add_route(index)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str] = "umbel.toml", import_name: str = "umbel", **options: Any
    ) -> Umbel:
        """The application that a configuration file describes; ``options`` are the constructor's.

        Raises:
            ConfigError: every mistake in the file and those it includes, at once.
        """
        options.setdefault("static_folder", None)
        return cls(import_name, load(path, checks=CHECKS), **options)

    def _add_route(self, index: int) -> None:
        plan = compiler.compile_route(self.gateway_config, index)
        view = RouteView(self.gateway_context, plan)
        endpoint, for_quart = f"umbel-route-{index}", view.view
        self.add_url_rule(plan.route.path, endpoint, for_quart, methods=list(plan.methods))
        self.route_table.add(endpoint, view, for_quart)
        if view.krakend_compat:
            self.krakend_endpoints.add(endpoint)

    def compose(
        self,
        rule: str,
        *,
        deadline: float | None = 5.0,
        methods: Iterable[str] = ("GET",),
        vary: Iterable[str] = (),
        etag: bool = True,
        expose: Expose = "full",
        krakend_compat: bool = False,
        **options: Any,
    ) -> Callable[[HandlerT], HandlerT]:
        """Register a handler that composes its answer in Python.

        The handler gets a ``Compose`` and the rule's values, and returns the JSON value of the answer (or a Quart
        response, which is sent as it is). A required call that fails is answered with its problem.

        Args:
            rule: a werkzeug rule, as for ``@app.route``; ``options`` are the same too.
            deadline: seconds after the request came; None for none (its calls have a minute each, if nothing else).
            methods: HEAD and OPTIONS come by themselves.
            vary: the request headers that the answer depends on.
            etag: whether a complete answer bears a strong ETag.
            expose: which diagnostic headers clients get.
            krakend_compat: also send ``X-KrakenD-Completed``, with errors too.
        """
        rules = AnswerRules(vary, etag=etag, expose=expose, krakend_compat=krakend_compat)
        endpoint = options.pop("endpoint", None)

        def register(handler: HandlerT) -> HandlerT:
            view = ComposeView(self.gateway_context, rule, handler, deadline, rules, self._upstream_defaults)
            name = endpoint or handler.__name__
            self.add_url_rule(rule, name, view.view, methods=list(methods), **options)
            self.route_table.add_handler(name, view)
            if rules.krakend_compat:
                self.krakend_endpoints.add(name)
            return handler

        return register

    @cached_property
    def _upstream_defaults(self) -> Mapping[str, UpstreamDefaults]:
        upstreams = self.gateway_config.upstreams
        return {name: UpstreamDefaults.of(name, upstream) for name, upstream in upstreams.items()}

    def _check_setup_finished(self, f_name: str) -> None:
        """Quart's; called whenever something is registered with the application.

        Raises:
            AssertionError: the application serves.
        """
        if self.route_table.is_open:
            refuse_registration(f_name)
        super()._check_setup_finished(f_name)

    def open_routes(self) -> None:
        """See ``GatewayApplication``."""
        self._is_wrapped = replaces_entrance(type(self), _PARTS)
        found = find_hooks(self, _PARTS, self.route_table.views)
        self.route_table.open(self.gateway_context, cast("UmbelMap", self.url_map), self.view_functions, found)

    def handle(self, request: Any) -> Coroutine[Any, Any, None]:
        """Answer a request: one that the table of routes finds before Quart, any other through ``asgi_app``.

        Whoever wraps or replaces ``asgi_app`` or ``__call__`` sees all of them.
        """
        table = self.route_table
        if not (request.websocket or self._has_root_path or self._is_wrapped or "asgi_app" in self.__dict__):
            match = table.find(request.method, request.target)
            if match is not None:
                cycle = self._new_cycle(match, request, lambda: make_scope(request, request.server), _push_nothing)
                if cycle.origin.fields.has_plain_host:  # Quart refuses a host that is none.
                    return cycle.run()
        return serve_asgi(self, request)

    def _new_cycle(
        self, match: Match, inbound: InboundRequest, scope: Callable[[], Mapping[str, Any]], send: Send
    ) -> RequestCycle:
        route = match.route
        if isinstance(route, ComposeView):
            return HandlerCycle(self.gateway_context, self._dispatch, match, route, inbound, scope, send)
        return PlanCycle(self.gateway_context, match, route, inbound)

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Quart's; but a request that the table of routes finds is answered before it.

        Under a server that does not run trio, each scope gets a sentence.
        """
        if self.gateway_context.serving.runtime is None and not trio.lowlevel.in_trio_run():
            await refuse(scope, send)
            return
        if scope["type"] == "http" and not scope.get("root_path") and not scope.get(_KEPT):
            match = self.route_table.find(scope["method"], target_of(scope))
            if match is not None and match.decoded == scope["path"]:  # Middleware may have changed the path alone.
                limits, max_body = self.limits, self.config["MAX_CONTENT_LENGTH"]
                request = AsgiRequest(scope, receive, send, limits=limits, max_body=max_body)
                cycle = self._new_cycle(match, request, lambda: scope, send)
                if cycle.origin.fields.has_plain_host:  # As above.
                    await request.serve(cycle.run)
                    return
        await super().asgi_app(scope, receive, send)

    def error_response_fields(self, head: RequestHead | None) -> tuple[Field, ...]:
        """The fields of what the server refuses by itself, before it is known which route a request is for."""
        return ((KRAKEND_COMPLETED, b"false"),) if self.krakend_endpoints else ()

    # Starting it as a script.

    def run(  # type: ignore[override]  # Quart-Trio's parameters with our defaults
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        debug: bool | None = None,
        use_reloader: bool = False,
        ca_certs: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Serve until SIGINT, SIGTERM or SIGQUIT: the embedded server, for ``python app.py``.

        ``port`` 0 takes a free one; the address is printed. There is no reloader. A loop that is blocked for
        ``hang_timeout`` is reported on stderr (``server/process/loop_watchdog.py``).

        Raises:
            OSError: the address cannot be listened on.
        """
        if use_reloader or kwargs:
            ignored = ", ".join([*(["use_reloader"] if use_reloader else []), *kwargs])
            warnings.warn(f"Umbel.run() has no use for: {ignored}", stacklevel=2)
        gc_tuning.apply()
        try:
            files = ca_certs, certfile, keyfile
            serving = partial(self.run_task, host, port, debug, *files, task_status=_Announcement(self))
            with no_deadly_signals(), crashes_on_stderr():
                trio.run(self._watched, serving)
        except BaseExceptionGroup as group:
            raise_unwrapped(group)
            raise

    async def _watched(self, serving: Callable[[], Awaitable[None]]) -> None:
        def record(sentence: str) -> None:
            self.recorder.record(LogMessage("error", EVENT, sentence))

        async with watched_loop(self.gateway_config.supervisor.hang_timeout, record):
            await serving()

    def run_task(  # type: ignore[override]  # as above
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        debug: bool | None = None,
        ca_certs: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        shutdown_trigger: Callable[..., Awaitable[None]] | None = None,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> Coroutine[None, None, None]:
        """Serve inside a running trio program; ``task_status`` gets the bound addresses. See ``server.serving``."""
        if debug is not None:
            self.debug = debug
        bind = host if host.startswith(("unix:", "fd:")) else f"{host}:{port}"
        config = hypercorn_config(bind=[bind])
        config.ca_certs, config.certfile, config.keyfile = ca_certs, certfile, keyfile
        return serve(self, config, shutdown_trigger=shutdown_trigger, task_status=task_status)


_PARTS = parts_of(Umbel)


async def _push_nothing(_: object) -> None:
    """ASGI's ``send`` of a request that came without ASGI. Quart would push by it (HTTP/2), and our server cannot."""


class _Announcement(trio.TaskStatus[list[str]]):
    """Prints the bound addresses when they are known."""

    def __init__(self, app: Umbel) -> None:
        self._app = app

    def started(self, value: list[str] | None = None) -> None:
        announce(value or (), self._app.recorder)
