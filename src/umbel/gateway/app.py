"""``Umbel``: a QuartTrio whose routes can be compositions.

The application object that every way to start serves. It ties the other files of this package together and holds no
rule of its own about HTTP.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import quart.wrappers.base
import trio
from quart import request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import RoutingException

from ..composition import plan as planning
from ..composition.outgoing import UpstreamDefaults
from ..config.load import load
from ..config.schema import Config
from ..errors import ConfigError, NotRunningError, RequestError
from ..events import NULL, Recorder
from ..kinds import Kind
from ..server import garbage, guard
from ..server.limits import Limits
from ..server.serve import serve
from ..server.settings import hypercorn_config
from . import crashes
from .checks import CHECKS
from .compose import ComposeView
from .connection import Connection
from .exchange import find_exchange, find_websocket_exchange
from .forwarded import TrustedProxies
from .lifespan import Lifespan, State
from .problems import as_http_exception, from_http_exception
from .respond import AnswerRules, Expose
from .routes import RouteView
from .uploads import UmbelRequest
from .websocket import WebsocketConnection

if TYPE_CHECKING:
    import httpx
    from quart.typing import ResponseReturnValue, ResponseTypes

    from ..model import RequestFacts
    from .compose import Handler
    from .runtime import Runtime
    from .sending import AnyResponse

HandlerT = TypeVar("HandlerT", bound="Handler")

# What Quart's websocket raises once its client has gone; 0.22 has no such exception.
_DISCONNECTED: tuple[type[Exception], ...] = tuple(
    found for name, found in vars(quart.wrappers.base).items() if name == "ClientDisconnectedError"
)


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """A snapshot of an application's counters."""

    state: State
    requests_in_flight: int
    requests_total: int


class Umbel(QuartTrio):
    """A Quart-Trio application that composes upstream calls into answers.

    Blueprints, hooks, error handlers, plain routes and websockets are Quart's. On top of them:

    * each route of ``config`` is a Quart rule whose view runs its plan;
    * ``@app.compose`` does the same for a handler in Python;
    * every error that no handler of the application takes is a problem document (RFC 9457);
    * every request leaves exactly one record, and nothing running.

    ``transports`` replaces the stacks of the upstreams it names by transports of the caller's (who closes them), such
    as ``httpx.MockTransport``; ``recorder`` replaces the files of ``[logs]``. Both are there for tests and for
    embedding.
    """

    request_class = UmbelRequest
    asgi_http_class = Connection  # type: ignore[assignment]  # Quart types it for any app; ours needs an Umbel
    asgi_websocket_class = WebsocketConnection  # type: ignore[assignment]  # as above
    asgi_lifespan_class = Lifespan  # type: ignore[assignment]  # as above

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
        super().__init__(import_name, **quart_options)
        guard.install()
        self.gateway_config = config if config is not None else Config()
        self.given_transports: Mapping[str, httpx.AsyncBaseTransport] = transports or {}
        self.given_recorder = recorder
        self.trusted_proxies = TrustedProxies(self.gateway_config.server.trusted_proxies)
        self.limits = Limits.of(self.gateway_config.server)
        self.state = State.NEW
        self.current_runtime: Runtime | None = None
        self.refusal: ConfigError | None = None
        """Why its configuration kept it from starting, where that showed only then."""
        self.composes_in_code = False
        """Whether a handler of ``compose`` is registered."""
        self._draining = False
        self._degraded = False
        self._in_flight = 0
        self._total = 0
        self.config["MAX_CONTENT_LENGTH"] = self.gateway_config.server.max_body
        for index in range(len(self.gateway_config.routes)):
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
        plan = planning.compile_route(self.gateway_config, index)
        view = RouteView(self, plan, self.gateway_config.server.max_body)
        self.add_url_rule(plan.route.path, f"umbel-route-{index}", view.view, methods=list(plan.methods))

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
            deadline: seconds after the request came; None for none.
            methods: HEAD and OPTIONS come by themselves.
            vary: the request headers that the answer depends on.
            etag: whether a complete answer bears a strong ETag.
            expose: which diagnostic headers clients get.
            krakend_compat: also send ``X-KrakenD-Completed``.
        """
        rules = AnswerRules.varying(vary, etag=etag, expose=expose, krakend_compat=krakend_compat)
        endpoint = options.pop("endpoint", None)
        self.composes_in_code = True

        def register(handler: HandlerT) -> HandlerT:
            view = ComposeView(self, rule, handler, deadline, rules, self._upstream_defaults)
            self.add_url_rule(rule, endpoint or handler.__name__, view.view, methods=list(methods), **options)
            return handler

        return register

    @cached_property
    def _upstream_defaults(self) -> Mapping[str, UpstreamDefaults]:
        upstreams = self.gateway_config.upstreams
        return {name: UpstreamDefaults.of(name, upstream) for name, upstream in upstreams.items()}

    # What the rest of the package asks of it.

    @property
    def runtime(self) -> Runtime:
        """The open recorder and transports.

        Raises:
            RequestError: 503, the application is not between startup and shutdown.
        """
        if self.current_runtime is None:
            error = NotRunningError(f"a request came while the application is {self.state}; did its lifespan run?")
            self.logger.error(str(error))
            raise RequestError(503, "The gateway is not ready.") from error
        return self.current_runtime

    @property
    def recorder(self) -> Recorder:
        """Where records go at the moment; nowhere before startup and after shutdown."""
        if self.current_runtime is not None:
            return self.current_runtime.recorder
        return self.given_recorder or NULL

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the recorder and the pools are open, and nobody has said otherwise."""
        return self.state is State.SERVING and not self._draining and not self._degraded

    def begin_drain(self) -> None:
        """The server has been asked to stop: from now on ``/readyz`` says so, while requests are still served."""
        self._draining = True

    def set_degraded(self, degraded: bool) -> None:
        """The supervisor says that too many workers die, or that this is over: ``/readyz`` says it, and no more."""
        self._degraded = degraded

    def statistics(self) -> GatewayStatistics:
        """A snapshot of the counters."""
        return GatewayStatistics(self.state, self._in_flight, self._total)

    def request_began(self) -> None:
        """Count a request in."""
        self._in_flight += 1
        self._total += 1

    def request_ended(self) -> None:
        """Count a request out."""
        self._in_flight -= 1

    # Errors: the application's own handlers first, then problem documents. Nothing is lost on the way.

    # Quart 0.23 hands its context to these methods as an argument, 0.22 keeps it in a variable: ``context`` is either.

    async def full_dispatch_request(self, *context: Any) -> AnyResponse:
        """Quart's dispatch, with both halves kept of a group that holds a cancel and a crash.

        (Quart-Trio raises the cancel alone, and the crash is never heard of.)
        """
        try:
            return await super().full_dispatch_request(*context)
        except BaseExceptionGroup as error:
            crash, rest = crashes.split(error)
            if crash is None or rest is None:
                raise
            crashes.note(self.recorder, "request.crashed", crash, self._facts())
            raise rest from crash

    async def handle_user_exception(self, *context_and_error: Any) -> HTTPException | ResponseReturnValue:
        """Find a handler; a ``RequestError`` that has none goes by its status, as ``abort(status)`` would."""
        *context, error = context_and_error
        if isinstance(error, BaseExceptionGroup):
            return await self._handle_group(context, error)
        exchange = find_exchange()
        if (
            isinstance(error, RequestError)
            and exchange is not None
            and self._find_error_handler(error, request.blueprints) is None
        ):
            exchange.detail = error.detail
            error = as_http_exception(error)
        quarts: Any = super()
        answer: HTTPException | ResponseReturnValue = await quarts.handle_user_exception(*context, error)
        return answer

    async def _handle_group(
        self, context: list[Any], group: BaseExceptionGroup[BaseException]
    ) -> HTTPException | ResponseReturnValue:
        """The first leaf that has a handler answers, as with Quart-Trio; the others are recorded."""
        crash, rest = crashes.split(group)
        if crash is None or rest is not None:
            raise group
        leaves = [leaf for leaf in crashes.leaves(crash) if isinstance(leaf, Exception)]
        for leaf in leaves:
            others = [other for other in leaves if other is not leaf]
            try:
                answer = await self.handle_user_exception(*context, leaf)
            except Exception as raised:
                if raised is leaf:
                    continue
                # Its handler broke: that is the exception now, and the leaf its context.
                self._note_all(others)
                raise
            self._note_all(others)
            return answer
        raise group

    def _note_all(self, errors: Iterable[Exception]) -> None:
        for error in errors:
            crashes.note(self.recorder, "request.crashed", error, self._facts())

    async def handle_websocket_exception(self, *context_and_error: Any) -> ResponseTypes | None:
        """Quart's; but a client that has gone is no failure. (Quart-Trio 0.13 takes it for one.)"""
        error = context_and_error[-1]
        if isinstance(error, _DISCONNECTED):
            raise error
        quarts: Any = super()
        answer: ResponseTypes | None = await quarts.handle_websocket_exception(*context_and_error)
        return answer

    def log_exception(self, *context_and_info: Any) -> None:
        """Record an exception that no handler took, each leaf of a group; Quart's logger hears of it too."""
        error = context_and_info[-1][1]
        if error is not None:
            exchange = find_exchange()
            event = "request.crashed" if exchange is not None else "app.crashed"
            crashes.note(self.recorder, event, error, self._facts())
            if (exchange := exchange or find_websocket_exchange()) is not None:
                exchange.kind, exchange.detail = Kind.INTERNAL, "an exception that no handler took"
        super().log_exception(*context_and_info)

    async def make_response(self, result: ResponseReturnValue | HTTPException) -> AnyResponse:
        """Quart's, but an HTTP error that no handler of the application took becomes a problem document."""
        if (
            isinstance(result, HTTPException)
            and not isinstance(result, RoutingException)
            and result.response is None
            and (result.code or 0) >= 400
        ):
            facts = self._facts()
            if result.code == 400 and (exchange := find_exchange()) is not None:
                exchange.kind = Kind.BAD_REQUEST
            return from_http_exception(result, facts.request_id if facts is not None else "")
        return await super().make_response(result)

    async def make_default_options_response(self, *context: Any) -> TrioResponse:
        """The answer to OPTIONS: the methods, and no content."""
        quarts = await super().make_default_options_response(*context)
        return TrioResponse(b"", 204, {"allow": ", ".join(sorted(quarts.allow))})

    @staticmethod
    def _facts() -> RequestFacts | None:
        exchange = find_exchange() or find_websocket_exchange()
        return exchange.facts if exchange is not None else None

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
        """Serve until SIGINT or SIGTERM: the embedded server, for ``python app.py``.

        ``port`` 0 takes a free one; the address is printed. There is no reloader.

        Raises:
            OSError: the address cannot be listened on.
        """
        if use_reloader or kwargs:
            ignored = ", ".join([*(["use_reloader"] if use_reloader else []), *kwargs])
            warnings.warn(f"Umbel.run() has no use for: {ignored}", stacklevel=2)
        garbage.spare()
        trio.run(partial(self.run_task, host, port, debug, ca_certs, certfile, keyfile, task_status=_Announcement()))

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
        """Serve inside a running trio program; ``task_status`` gets the bound addresses. See ``server.serve``."""
        if debug is not None:
            self.debug = debug
        bind = host if host.startswith(("unix:", "fd:")) else f"{host}:{port}"
        config = hypercorn_config(bind=[bind])
        config.ca_certs, config.certfile, config.keyfile = ca_certs, certfile, keyfile
        return serve(self, config, shutdown_trigger=shutdown_trigger, task_status=task_status)


class _Announcement(trio.TaskStatus[list[str]]):
    """Prints the bound addresses when they are known."""

    def started(self, value: list[str] | None = None) -> None:
        for address in value or []:
            sys.stdout.write(f"Umbel runs on {address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
