"""The base of ``Umbel``: what the server, the supervisor and Quart's own objects of this package ask of an application.

It holds the ``GatewayContext`` and knows nothing of how a request is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from quart_trio import QuartTrio

from ..core.events import NULL
from ..server.limits.server_limits import Limits
from .context import GatewayContext, RequestCounts, ServingState, State
from .request.client_origin import TrustedProxies, origin_of

if TYPE_CHECKING:
    import httpx

    from ..config.schema.sections import Config
    from ..core.errors import ConfigError
    from ..core.events import Recorder
    from ..net.epoll import AnyReader
    from ..server.state import ServerState
    from .route_table import RouteTable
    from .runtime import Runtime


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """A snapshot of an application's counters."""

    state: State
    requests_in_flight: int
    """Those whose body is still coming are among them."""
    requests_total: int
    routes_before_quart: bool = False
    """Whether configured routes are answered before Quart. Decided when the application starts; see [server] hooks."""
    hooks_found: tuple[str, ...] = ()
    """What would see or change a request for one in Quart's dispatch."""
    uploads: int = 0
    """Requests whose body our own server waits for."""
    uploads_waiting: int = 0
    """Requests that wait for a place among those, their body unread."""


class GatewayApplication(QuartTrio):
    """A Quart-Trio application with a ``GatewayContext``."""

    route_table: RouteTable
    """Set before this constructor is called, for Quart's registers things already."""

    def __init__(
        self,
        import_name: str,
        config: Config,
        transports: Mapping[str, httpx.AsyncBaseTransport],
        recorder: Recorder | None,
        **quart_options: Any,
    ) -> None:
        """``transports`` and ``recorder``: see ``Umbel``."""
        super().__init__(import_name, **quart_options)
        self.config["MAX_CONTENT_LENGTH"] = config.server.max_body
        self.config["BODY_TIMEOUT"] = None  # Of the time of a body there is one bound, Limits.body_seconds.
        self.given_transports = transports
        self.given_recorder = recorder
        self.krakend_endpoints: set[str] = set()
        """The routes with ``krakend_compat``, by their endpoints."""
        self.gateway_context = GatewayContext(
            config,
            TrustedProxies(config.server.trusted_proxies),
            self.config,
            lambda: self.logger,
            RequestCounts(),
            ServingState(Limits.of(config.server), recorder or NULL),
        )
        self._has_root_path = False
        """Whether a server says that the application is mounted below a path, of which routes know nothing."""
        self._servers: WeakSet[ServerState] = WeakSet()

    @property
    def gateway_config(self) -> Config:
        """The configuration that the application was made of."""
        return self.gateway_context.config

    @property
    def trusted_proxies(self) -> TrustedProxies:
        """Whom the configuration trusts to say who the client is."""
        return self.gateway_context.proxies

    @property
    def hang_timeout(self) -> float:
        """Seconds after which a loop that is blocked is reported (``[supervisor] hang_timeout``); servers ask."""
        return self.gateway_context.config.supervisor.hang_timeout

    @property
    def limits(self) -> Limits:
        """The bounds of the server. They may be replaced before it serves."""
        return self.gateway_context.serving.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.gateway_context.serving.limits = limits

    @property
    def state(self) -> State:
        """Where the application stands."""
        return self.gateway_context.serving.state

    @property
    def config_error(self) -> ConfigError | None:
        """Why its configuration kept it from starting, where that showed only then."""
        return self.gateway_context.serving.config_error

    @property
    def current_runtime(self) -> Runtime | None:
        """The open recorder and transports; None before startup and after shutdown."""
        return self.gateway_context.serving.runtime

    @property
    def runtime(self) -> Runtime:
        """The open recorder and transports.

        Raises:
            RequestError: 503, the application is not between startup and shutdown.
        """
        return self.gateway_context.require_runtime()

    @property
    def socket_reader(self) -> AnyReader | None:
        """What watches the upstreams' sockets, for a server to share; None before startup and after shutdown."""
        runtime = self.current_runtime
        return None if runtime is None else runtime.reader

    @property
    def recorder(self) -> Recorder:
        """Where records go at the moment; nowhere before startup and after shutdown."""
        return self.gateway_context.serving.recorder

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the recorder and the pools are open, and nobody has said otherwise."""
        return self.gateway_context.serving.ready

    def begin_drain(self) -> None:
        """The server has been asked to stop: from now on ``/readyz`` says so, while requests are still served."""
        self.gateway_context.serving.draining = True

    def set_degraded(self, degraded: bool) -> None:
        """The supervisor says that too many workers die, or that this is over: ``/readyz`` says it, and no more."""
        self.gateway_context.serving.degraded = degraded

    def client_of(self, peer: str | None, fields: Iterable[tuple[bytes, bytes]], scheme: str) -> tuple[str, str]:
        """The address and the scheme of the client whose request came from ``peer`` with ``fields``, for a record."""
        origin = origin_of(peer, fields, self.trusted_proxies, scheme=scheme)
        return origin.client, origin.scheme

    def make_room(self) -> bool:
        """Refuse a request that waits for an upstream which completes nothing, so that a full server can take another.

        False where there is none; see ``upstream.bulkhead``.
        """
        runtime = self.current_runtime
        return runtime is not None and runtime.overload_manager.make_room()

    def add_server(self, server: ServerState) -> None:
        """One of our own servers serves this application: the statistics are to show what it counts."""
        self._servers.add(server)
        self._has_root_path = bool(server.root_path)

    def open_routes(self) -> None:
        """Decide which requests go through Quart, and let nothing more be registered; ``Lifespan`` calls it.

        Raises:
            ConfigError: as ``RouteTable.open``.
        """
        raise NotImplementedError

    def statistics(self) -> GatewayStatistics:
        """A snapshot of the counters."""
        servers = [server.statistics() for server in self._servers]
        counts = self.gateway_context.counts
        return GatewayStatistics(
            self.state,
            counts.in_flight,
            counts.total,
            self.route_table.before_quart,
            self.route_table.hooks,
            sum(each.uploads for each in servers),
            sum(each.uploads_waiting for each in servers),
        )
