"""``Umbel``: the application, a ``QuartTrio`` whose routes can be compositions of upstream calls.

A server gives each request to ``handle`` (Umbel's own server) or ``asgi_app`` (any ASGI server). Both ask the route
table first, and answer a request that it finds with a request cycle. All other requests go to Quart.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import trio
from werkzeug.exceptions import HTTPException

from ..composition.plan import compiler
from ..composition.plan.route_groups import RouteGroups
from ..composition.proxy.any_method import ANY_METHOD
from ..composition.request.code_request import UpstreamDefaults
from ..config.loading.load import load
from ..config.schema.sections import Config
from ..core.console import announce
from ..core.events import LogMessage, Recorder
from ..core.inbound import AnyHead, InboundApplication, InboundRequest
from ..logs import crashes_on_stderr
from ..net.exception_groups import raise_unwrapped
from ..server.asgi import make_scope
from ..server.handler import serve_asgi
from ..server.process import gc_tuning
from ..server.process.loop_watchdog import EVENT, watched_loop
from ..server.process.process_signals import no_deadly_signals
from ..server.process.settings import hypercorn_config
from ..server.serving import serve
from .access.requires import CodeAccess, states_access
from .browsers.preflight import PathRules, is_preflight, preflight_rules, rules_at
from .checks import CHECKS
from .compose import ComposeView
from .handler_cycle import HandlerCycle
from .proxy.proxy_cycle import ProxyCycle
from .proxy.proxy_view import ProxyView
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
from .request.client_origin import origin_in, origin_of
from .request.paths import origin_form
from .request.request_fields import Field
from .request_cycle import PlanCycle, StaticCycle
from .response.answer import AnswerRules, Expose
from .response.reply import KRAKEND_COMPLETED
from .route_table import RouteTable
from .routes import RouteView
from .routing.encoded_slashes import path_to_match
from .routing.host_map import methods_of, refuse_registration, rule_for_any_method
from .routing.route_group import RouteGroup
from .routing.url_map import UmbelMap, UmbelRule
from .static_routes import StaticView

if TYPE_CHECKING:
    import httpx
    from werkzeug.routing import MapAdapter

    from ..composition.plan.plan import Plan
    from .compose import Handler
    from .request.client_origin import ClientOrigin
    from .request_cycle import RequestCycle
    from .route_table import Match

_KEPT = "_quart._preserve_context"
"""Key that Quart's test client sets in a scope so that Quart's dispatch keeps its context for the test."""

HandlerT = TypeVar("HandlerT", bound="Handler")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Umbel(ErrorHandling, InboundApplication):
    """Quart-Trio application that composes the responses of upstreams into its own responses.

    Blueprints, hooks, error handlers, plain routes and websockets work as in Quart. In addition:

    * each route of the configuration runs its calls and answers with the composed result;
    * ``@app.compose`` registers a handler that composes a response in Python;
    * an error that no handler of the application takes becomes a problem document (RFC 9457);
    * each request gets exactly one access record; when a request has ended, none of its calls is still running.

    Args:
        import_name: as for ``Quart``: the name of the package, usually ``__name__``.
        config: the configuration; None: no upstreams and no routes.
        transports: httpx transports by name of the upstream, such as ``httpx.MockTransport``. Each makes the calls of
            its upstream in place of Umbel's client, without the upstream's policies. The application does not close
            them. For tests and embedding.
        recorder: takes all records in place of the files of ``[logs]``. For tests and embedding.
        quart_options: further arguments of ``Quart``.

    Raises:
        ConfigError: a route of ``config`` cannot be compiled to a plan.
    """

    request_class = UmbelRequest
    url_map_class = UmbelMap
    url_rule_class = UmbelRule  # type: ignore[assignment]  # as QuartRule in Quart
    asgi_http_class = QuartRequest  # type: ignore[assignment]  # Quart types it for any app; ours needs a context
    asgi_websocket_class = WebsocketConnection  # type: ignore[assignment]  # as above
    asgi_lifespan_class = Lifespan  # type: ignore[assignment]  # as above
    test_app_class = UmbelTestApp
    test_client_class = UmbelTestClient  # type: ignore[assignment]  # as in Quart-Trio

    _is_wrapped = False
    """Whether a subclass has its own ``asgi_app`` or ``__call__``, which must get every request."""

    def __init__(
        self,
        import_name: str,
        config: Config | None = None,
        *,
        transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
        recorder: Recorder | None = None,
        **quart_options: Any,
    ) -> None:
        """Make the application; see the class."""
        self.route_table = RouteTable()
        config = config if config is not None else Config()
        super().__init__(import_name, config, transports or {}, recorder, **quart_options)
        self._dispatch = QuartDispatch(
            self.app_context, partial(make_request_context, self), self.finalize_view, self.answer_exception
        )
        self._code_access = CodeAccess(self.gateway_context)
        groups = RouteGroups(config)
        for indexes in groups.groups():
            self._add_routes(indexes, groups)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str] = "umbel.toml", import_name: str = "umbel", **options: Any
    ) -> Umbel:
        """Make the application of a configuration file.

        Args:
            path: the file; it may include others.
            import_name: as for ``Quart``.
            options: further arguments of the constructor. ``static_folder`` is None unless it is given.

        Raises:
            ConfigError: the configuration cannot be used. The error holds every mistake in all files.
        """
        options.setdefault("static_folder", None)
        return cls(import_name, load(path, checks=CHECKS), **options)

    def _add_routes(self, indexes: Sequence[int], groups: RouteGroups) -> None:
        """Add the configured routes with these indexes. Several ones have the same host and path."""
        plans = [compiler.compile_route(self.gateway_config, index, groups) for index in indexes]
        routes = [(self._view_of(plan), plan) for plan in plans]
        is_group = any(plan.match is not None for plan in plans)
        added = RouteGroup(routes) if is_group else routes[0][0]
        endpoint, for_quart, route = f"umbel-route-{indexes[0]}", added.view, plans[0].route
        methods = methods_of(plans)
        if methods is ANY_METHOD:
            self.url_map.add(rule_for_any_method(self.url_rule_class, route.path, endpoint, route.host))
            self.view_functions[endpoint] = for_quart
        else:
            self.add_url_rule(route.path, endpoint, for_quart, methods=methods, host=route.host)
        self.route_table.add(endpoint, added, for_quart)
        self.gateway_context.browsers.add(endpoint, routes[0][0].browser_fields)
        if route.encoded_slash == "keep":
            cast("UmbelMap", self.url_map).keeps_slashes.add(endpoint)
        if any(view.krakend_compat for view, _ in routes):
            self.krakend_endpoints.add(endpoint)

    def _view_of(self, plan: Plan) -> RouteView | StaticView | ProxyView:
        static, context = plan.static, self.gateway_context
        if plan.proxy is not None:
            return ProxyView(context, plan, plan.proxy)
        return RouteView(context, plan) if static is None else StaticView(context, plan, static)

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
        compress: bool = True,
        cors: bool = True,
        encoded_slash: Literal["refuse", "keep"] = "refuse",
        auth: str | Sequence[str] | None = None,
        scopes: Sequence[str] = (),
        scopes_any: Sequence[str] = (),
        limits: str | Sequence[str] = (),
        **options: Any,
    ) -> Callable[[HandlerT], HandlerT]:
        """Decorator: register an async function that composes a response in Python.

        The function is called with a ``Compose`` and the values of the rule's variables. It returns the JSON value of
        the response, or ``(value, status)``, or ``(value, status, headers)``, or a Quart response, which is sent as it
        is. If a required call fails, the response is a problem document. Other exceptions go to Quart's error handlers.

        Args:
            rule: a werkzeug rule, as for ``@app.route``.
            deadline: seconds after the complete request, or less if the client asks for less, after which the
                function's calls are cut, and 20 ms later the function, with a 504. None: no deadline; a call without
                any other limit then has a timeout of one minute.
            methods: the allowed methods. OPTIONS is added, and HEAD if GET is among them.
            vary: names of request fields on which the response depends, beside Accept and those of ``auth``.
            etag: whether a complete response with status 200 to GET or HEAD gets a strong ETag.
            expose: the diagnostic fields that clients get: "full", "completed" (only Umbel-Completed), or "none".
            krakend_compat: whether every response has ``X-KrakenD-Completed``; needs ``expose``.
            compress: whether ``[compress]`` applies.
            cors: whether ``[cors]`` applies.
            encoded_slash: "keep": a value of the path may hold an encoded slash, ``%2F``; "refuse": such a path is 400.
            auth: the names of sections ``[auth.NAME]`` (or one name), as the arguments of ``requires``; None: anybody.
            scopes: as for ``requires``, like ``scopes_any`` and ``limits``.
            options: further arguments of ``@app.route``.

        Raises:
            TypeError: the function is not async.
            ValueError: ``auth`` or ``limits`` names no section, or ``@app.requires`` stands at the function too.
            AssertionError: the application is serving already.
        """

        def register(handler: HandlerT) -> HandlerT:
            access = auth, scopes, scopes_any
            function, admission = self._code_access.of_handler(handler, access, limits, cors=cors)
            names = (*vary, *admission.fields) if admission else vary
            rules = AnswerRules(names, etag=etag, expose=expose, krakend_compat=krakend_compat)
            of_handler = self.gateway_context, rule, function, deadline, rules, self._upstream_defaults
            view = ComposeView(*of_handler, compress=compress, cors=cors, admission=admission)
            view.states_access = auth is not None or function is not handler
            self._add_handler(handler, view, {"methods": list(methods), **options}, slashes=encoded_slash == "keep")
            return handler

        return register

    def _add_handler(self, handler: Handler, view: ComposeView, options: Mapping[str, Any], *, slashes: bool) -> None:
        endpoint = options.get("endpoint") or handler.__name__
        self.add_url_rule(view.rule, view_func=view.view, **{**options, "endpoint": endpoint})
        view.registered = handler
        self.route_table.add_handler(endpoint, view)
        self.gateway_context.browsers.add(endpoint, view.browser_fields)
        if slashes:
            cast("UmbelMap", self.url_map).keeps_slashes.add(endpoint)
        if view.krakend_compat:
            self.krakend_endpoints.add(endpoint)

    def requires(
        self,
        *names: str,
        scopes: Sequence[str] = (),
        scopes_any: Sequence[str] = (),
        limits: str | Sequence[str] = (),
    ) -> Callable[[FunctionT], FunctionT]:
        """Decorator: admit only requests with a credential, for plain views, WebSockets and handlers.

        It stands below the decorator that registers the function, such as ``@app.route``. A request that is not
        admitted gets 401, 403, 429 or 503, and the function is not called. The function finds the identity in
        ``umbel.auth.current()``.

        Args:
            names: the names of sections ``[auth.NAME]``, of one of which a credential is needed; or only "none":
                anybody may call the function.
            scopes: the scopes that the credential must grant, all of them.
            scopes_any: scopes of which the credential must grant at least one.
            limits: the names of sections ``[limits.NAME]`` (or one name) that requests must conform to.

        Raises:
            ValueError: a name is unknown, or "none" does not stand alone.
        """
        return self._code_access.requires(names, scopes, scopes_any, limits)

    @cached_property
    def _upstream_defaults(self) -> Mapping[str, UpstreamDefaults]:
        upstreams = self.gateway_config.upstreams
        return {name: UpstreamDefaults.of(name, upstream) for name, upstream in upstreams.items()}

    def _check_setup_finished(self, f_name: str) -> None:
        """Called by Quart whenever something is registered with the application.

        Raises:
            AssertionError: the application is serving.
        """
        if self.route_table.is_open:
            refuse_registration(f_name)
        super()._check_setup_finished(f_name)

    def open_routes(self) -> None:
        """Decide which requests are answered before Quart, and refuse further registrations.

        Raises:
            ConfigError: ``hooks = "python"`` skips a hook that may be a login, and a route has no ``auth``.
            AssertionError: an ``@app.requires`` has no effect.
        """
        self._check_access()
        self._is_wrapped = replaces_entrance(type(self), _PARTS)
        found = find_hooks(self, _PARTS, self.route_table.views)
        self.route_table.open(self.gateway_context, cast("UmbelMap", self.url_map), self.view_functions, found)

    def _check_access(self) -> None:
        """Check the access of the application's own views and handlers, and report those that are open to anybody.

        Raises:
            AssertionError: an ``@app.requires`` has no effect.
        """
        handlers, configured = self.route_table.handlers, self.route_table.views
        self._code_access.check({**self.view_functions, **{name: each.registered for name, each in handlers.items()}})
        silent = [name for name, each in handlers.items() if not each.states_access]
        for name, view in self.view_functions.items():
            if name not in handlers and name not in configured and name != "static" and not states_access(view):
                silent.append(name)
        self._code_access.warn(rule.rule for rule in self.url_map.iter_rules() if rule.endpoint in silent)

    def handle(self, request: Any) -> Coroutine[Any, Any, None]:
        """Answer an ``InboundRequest``: before Quart if the route table finds its route, else through ``asgi_app``.

        If ``asgi_app`` or ``__call__`` is wrapped or overridden (middleware), every request goes through it. Returns
        the coroutine that answers; nothing is sent before it is awaited.
        """
        table = self.route_table
        if not (self._has_root_path or self._is_wrapped or "asgi_app" in self.__dict__):
            origin = self._origin_of(request) if table.reads_head else None
            websocket = request.websocket
            match = table.find("GET" if websocket else request.method, request.target, origin)
            if match is not None and (not websocket or isinstance(match.route, ProxyView)):
                cycle = self._new_cycle(match, request, lambda: make_scope(request, request.server), _push_nothing)
                if cycle.origin.fields.has_plain_host:  # Quart refuses a request with an invalid Host.
                    return cycle.run()
        return serve_asgi(self, request)

    def takes_any_size(self, head: AnyHead) -> bool:
        """Whether a request may be for a proxy route, which passes a body of any size on."""
        adapter, path = self._matched(head, self._origin_of_head(head))
        try:
            endpoint, _ = adapter.match(path, head.method)
        except HTTPException:
            return False
        return self.route_table.passes_on(endpoint)

    def _new_cycle(
        self, match: Match, inbound: InboundRequest, scope: Callable[[], Mapping[str, Any]], send: Send
    ) -> RequestCycle:
        route = match.route
        if isinstance(route, RouteView):
            return PlanCycle(self.gateway_context, match, route, inbound)
        if isinstance(route, StaticView):
            return StaticCycle(self.gateway_context, match, route, inbound)
        if isinstance(route, ProxyView):
            return ProxyCycle(self.gateway_context, match, route, inbound)
        assert not isinstance(route, RouteGroup), "find has chosen one of its routes"
        return HandlerCycle(self.gateway_context, self._dispatch, match, route, inbound, scope, send)

    def _origin_of(self, inbound: InboundRequest) -> ClientOrigin:
        peer = inbound.peer and inbound.peer[0]
        return origin_of(peer, inbound.fields, self.trusted_proxies, inbound.version, inbound.scheme)

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer an ASGI scope: before Quart if the route table finds its route, else with Quart's ``asgi_app``.

        Under a server that does not run trio, every scope is refused with a message that names the right command.
        """
        if self.gateway_context.serving.runtime is None and not trio.lowlevel.in_trio_run():
            await refuse(scope, send)
            return
        direct = scope["type"] == "http" and not scope.get("root_path") and not scope.get(_KEPT)
        # ``QuartRequest`` refuses a peer that is not admitted. (Umbel's own server has refused it already.)
        if direct and self.gateway_context.admits(scope):
            origin = origin_in(scope, self.trusted_proxies) if self.route_table.reads_head else None
            match = self.route_table.find(scope["method"], target_of(scope), origin)
            # Middleware may have changed ``path`` without ``raw_path``; then Quart, which uses ``path``, answers.
            if match is not None and match.decoded == scope["path"]:
                limits, max_body = self.limits, self.config["MAX_CONTENT_LENGTH"]
                request = AsgiRequest(scope, receive, send, limits=limits, max_body=max_body)
                cycle = self._new_cycle(match, request, lambda: scope, send)
                if cycle.origin.fields.has_plain_host:  # Quart refuses a request with an invalid Host.
                    await request.serve(cycle.run)
                    return
        await super().asgi_app(scope, receive, send)

    def error_response_fields(self, head: AnyHead, fields: list[Field]) -> Sequence[Field]:
        """The header fields of a response that the server itself sends, made of the server's ``fields``.

        If any route has ``krakend_compat``, ``X-KrakenD-Completed: false`` is added. The fields for browsers are those
        of the path's routes, and for a preflight those of its response. Those of CORS need a head that could be read.
        """
        if self.krakend_endpoints:
            fields.append((KRAKEND_COMPLETED, b"false"))
        origin, browsers = self._origin_of_head(head), self.gateway_context.browsers
        at = self._preflight_at(head, origin)
        if at is None and browsers.has_overrides:
            at = rules_at(browsers, *self._matched(head, origin), head.method)
        (browsers.default if at is None else at.browser_fields).add(fields, origin)
        return fields

    def is_preflight(self, head: AnyHead) -> bool:
        """Whether a request is a preflight for which the gateway has CORS rules."""
        return self._preflight_at(head, self._origin_of_head(head)) is not None

    def _preflight_at(self, head: AnyHead, origin: ClientOrigin) -> PathRules | None:
        asked = origin.fields.by_name
        if not is_preflight(head.method, asked):
            return None
        return preflight_rules(self.gateway_context.browsers, *self._matched(head, origin), asked)

    def _origin_of_head(self, head: AnyHead) -> ClientOrigin:
        peer = None if head.peer is None else head.peer[0]
        return origin_of(peer, head.fields, self.trusted_proxies, scheme=head.scheme)

    def _matched(self, head: AnyHead, origin: ClientOrigin) -> tuple[MapAdapter, str]:
        """The adapter that matches the path of a request, and the path."""
        path = path_to_match(origin_form(head.target.partition(b"?")[0]))
        return cast("UmbelMap", self.url_map).adapter_for_host(origin.host), path

    # Serving from a script.

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
        """Serve until SIGINT, SIGTERM or SIGQUIT, in this process; for ``python app.py``. Starts trio.

        SIGINT and SIGTERM let requests in flight end, SIGQUIT ends them at once. The address is printed to stdout. If
        the event loop is blocked for ``hang_timeout``, the stacks of all threads are written to stderr.

        Args:
            host: the address, or ``unix:PATH`` or ``fd:NUMBER``.
            port: the port; 0: a free port.
            debug: sets ``app.debug``; None: unchanged.
            use_reloader: ignored with a warning; there is no reloader.
            ca_certs: file with the certificates of authorities for client certificates.
            certfile: file with the server's certificate; None: no TLS.
            keyfile: file with the server's private key.
            kwargs: ignored with a warning.

        Raises:
            OSError: the server cannot listen on the address.
            hypercorn.utils.LifespanFailureError: the application failed to start or to stop, or an address in
                ``[admin]`` is taken.
        """
        if use_reloader or kwargs:
            ignored = ", ".join([*(["use_reloader"] if use_reloader else []), *kwargs])
            warnings.warn(f"Umbel.run() ignores these arguments: {ignored}", stacklevel=2)
        gc_tuning.apply()
        self.admin_options = replace(self.admin_options, strict=True)
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

    def run_task(  # type: ignore[override]  # Quart-Trio's parameters with our defaults
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
        """Serve within a running trio program until cancelled, or until ``shutdown_trigger`` returns.

        Without a ``shutdown_trigger`` the signals of ``run`` end it, if it runs in the main thread. ``task_status``
        gets the bound addresses once the server answers requests. Other arguments and errors: as for ``run``.
        """
        if debug is not None:
            self.debug = debug
        bind = host if host.startswith(("unix:", "fd:")) else f"{host}:{port}"
        config = hypercorn_config(bind=[bind])
        config.ca_certs, config.certfile, config.keyfile = ca_certs, certfile, keyfile
        return serve(self, config, shutdown_trigger=shutdown_trigger, task_status=task_status)


_PARTS = parts_of(Umbel)


async def _push_nothing(_: object) -> None:
    """ASGI's ``send`` for a request that came without ASGI. Quart would use it only for HTTP/2 push."""


class _Announcement(trio.TaskStatus[list[str]]):
    """Task status that prints the bound addresses."""

    def __init__(self, app: Umbel) -> None:
        self._app = app

    def started(self, value: list[str] | None = None) -> None:
        announce(value or (), self._app.recorder)
