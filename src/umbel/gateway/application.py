"""Base class of ``Umbel``: the interface of an application to the server, the supervisor and Quart's objects.

It holds the ``GatewayContext`` and does not answer requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import msgspec
from quart_trio import QuartTrio

from ..auth.first_keys import MissingKeysError, missing_keys
from ..auth.statistics import AuthenticatorStatistics, authenticator_statistics
from ..core.events import NULL
from ..core.networks import Admission, Networks
from ..limits.limiter import Limiter, LimiterStatistics, limiters_named
from ..observe.process.process_side import AdminOptions
from ..server.limits.server_limits import Limits
from ..upstream.client import Client
from .access.query_tokens import token_parameters
from .access.route_limits import RouteLimits
from .browsers.browser_fields import BrowserRules
from .browsers.compression import Compression
from .context import GatewayContext, RequestCounts, ServingState, State
from .operation.figures import Exemplars, Values, application_figures
from .operation.live_requests import FRAMES
from .operation.tracing import head_bound_of
from .request.client_origin import origin_of

if TYPE_CHECKING:
    import httpx

    from ..config.schema.sections import Config
    from ..core.errors import ConfigError
    from ..core.events import Recorder
    from ..net.epoll import Reader
    from ..observe.kept_requests import KeptRequests
    from ..observe.traffic.upstreams import Snapshots
    from ..observe.tree.reader import Frames
    from ..server.state import ServerState
    from ..upstream.network import Network
    from .route_table import RouteTable
    from .runtime import Runtime


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """Frozen snapshot of an application's counters."""

    state: State
    requests_in_flight: int
    """Requests that are being answered, including those whose body is still to come."""
    requests_total: int
    """All requests so far."""
    routes_before_quart: bool = False
    """Whether configured routes are answered before Quart (``[server] hooks``); decided at startup."""
    hooks_found: tuple[str, ...] = ()
    """The hooks that would see or change a request for a configured route in Quart's dispatch."""
    uploads: int = 0
    """Requests for whose body Umbel's own server waits."""
    uploads_waiting: int = 0
    """Requests that wait for an upload slot; their body is not read yet."""
    streams: int = 0
    """Streams of Umbel's own server (``[server] max_streams``): open WebSockets, and long responses."""
    auth: tuple[AuthenticatorStatistics, ...] = ()
    """The authenticators with their keys, in the order of the configuration; empty before startup and afterwards."""
    limits: tuple[LimiterStatistics, ...] = ()
    """The limits, in the order of the configuration; empty before startup and afterwards."""


class GatewayApplication(QuartTrio):
    """Quart-Trio application with the state, limits and counters that servers and the supervisor use.

    Args:
        import_name: as for ``Quart``.
        config: the configuration.
        transports: see ``Umbel``.
        recorder: see ``Umbel``.
        quart_options: further arguments of ``Quart``.
    """

    route_table: RouteTable
    """The subclass sets it before it calls this constructor, because Quart's constructor registers routes already."""

    def __init__(
        self,
        import_name: str,
        config: Config,
        transports: Mapping[str, httpx.AsyncBaseTransport],
        recorder: Recorder | None,
        **quart_options: Any,
    ) -> None:
        super().__init__(import_name, **quart_options)
        self.config["MAX_CONTENT_LENGTH"] = config.server.max_body
        self.config["BODY_TIMEOUT"] = None  # ``Limits.body_seconds`` is the only bound on the time of a body.
        self.given_transports = transports
        self.given_recorder = recorder
        """Takes all records in place of the log files. May be replaced before the application starts."""
        self.given_network: Network | None = None
        """Carries the connections of the upstreams in place of sockets. May be set before the application starts."""
        self.krakend_endpoints: set[str] = set()
        """Endpoints of the routes with ``krakend_compat``."""
        self.gateway_context = GatewayContext(
            config,
            Networks(config.server.trusted_proxies),
            Admission(config.server.allow_networks, config.server.deny_networks),
            self.config,
            lambda: self.logger,
            RequestCounts(),
            ServingState(Limits.of(config.server), recorder or NULL),
            None if config.compress is None else Compression(config.compress),
            BrowserRules(config),
            token_parameters(config),
            head_bound_of(config),
        )
        limiters = limiters_named(config.limits, config.server.limits)
        if limiters:
            self.gateway_context.serving.admit_by_limits = RouteLimits(self.gateway_context, limiters).admit
        self._has_root_path = False
        """Whether a server mounts the application below a path (ASGI's ``root_path``), which only Quart handles."""
        self._servers: WeakSet[ServerState] = WeakSet()
        self.admin_options = AdminOptions()
        """How the process was started, for its admin side. May be replaced before the application serves."""

    @property
    def gateway_config(self) -> Config:
        """The configuration of the application."""
        return self.gateway_context.config

    @property
    def trusted_proxies(self) -> Networks:
        """The peers whose ``X-Forwarded-*`` and ``Forwarded`` fields are believed."""
        return self.gateway_context.proxies

    @property
    def hang_timeout(self) -> float:
        """Seconds after which a blocked event loop is reported (``[supervisor] hang_timeout``)."""
        return self.gateway_context.config.supervisor.hang_timeout

    @property
    def limits(self) -> Limits:
        """The server's limits on clients. They may be replaced before the application serves."""
        return self.gateway_context.serving.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.gateway_context.serving.limits = limits

    @property
    def state(self) -> State:
        """The state of the application."""
        return self.gateway_context.serving.state

    @property
    def config_error(self) -> ConfigError | None:
        """The mistake in the configuration that made startup fail; None: there was none."""
        return self.gateway_context.serving.config_error

    @property
    def current_runtime(self) -> Runtime | None:
        """Recorder and upstream clients; None before startup and after shutdown."""
        return self.gateway_context.serving.runtime

    @property
    def runtime(self) -> Runtime:
        """Recorder and upstream clients.

        Raises:
            RequestError: 503, the application has not started or has stopped.
        """
        return self.gateway_context.require_runtime()

    @property
    def socket_reader(self) -> Reader | None:
        """The reader of the upstreams' sockets, which a server may share.

        None before startup, after shutdown, and where the upstreams have no sockets (``given_network``).
        """
        runtime = self.current_runtime
        return None if runtime is None or self.given_network is not None else runtime.reader

    @property
    def recorder(self) -> Recorder:
        """The recorder that takes records now. Without a given recorder, records are dropped while not serving."""
        return self.gateway_context.serving.recorder

    @property
    def server(self) -> ServerState | None:
        """One of Umbel's own servers that serve the application; None if there is none."""
        return next(iter(self._servers), None)

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests to this process (``/readyz``)."""
        return self.gateway_context.serving.ready

    def begin_drain(self) -> None:
        """Note that the server shuts down: ``/readyz`` answers 503 from now on, and requests are still served."""
        self.gateway_context.serving.draining = True

    def set_degraded(self, degraded: bool) -> None:
        """Note whether too many workers die. ``/readyz`` answers 503 meanwhile; requests are still served."""
        self.gateway_context.serving.degraded = degraded

    def machine_limiters(self) -> Sequence[Limiter]:
        """The limiters that are to count together with those of the other workers; none before startup."""
        runtime = self.current_runtime
        limiters = () if runtime is None else runtime.limiters.values()
        return [limiter for limiter in limiters if limiter.section.shared == "machine"]

    @property
    def missing_keys(self) -> tuple[str, ...]:
        """The first keys that are missing, so that ``/readyz`` is 503: issuers with the names of their sections."""
        serving = self.gateway_context.serving
        if serving.runtime is None or not serving.waits_for_keys:
            return ()
        return tuple(each.name for each in missing_keys(serving.runtime.authenticators.values()))

    def require_keys(self, may_lack: Iterable[str] | None) -> None:
        """Note without which keys, as ``missing_keys`` names them, startup may end; None: without any.

        Startup waits for keys, and fails if one of the others has not come. Valid until startup ends.
        """
        self.gateway_context.serving.may_lack_keys = None if may_lack is None else frozenset(may_lack)

    @property
    def keys_error(self) -> MissingKeysError | None:
        """The missing keys that made startup fail; None: there were none."""
        return self.gateway_context.serving.keys_error

    def client_of(self, peer: str | None, fields: Iterable[tuple[bytes, bytes]], scheme: str) -> tuple[str, str]:
        """The client's address and scheme, for the record of a request.

        Args:
            peer: the address of the connection's other end; None on a Unix socket.
            fields: the header fields of the request.
            scheme: the scheme of the connection, ``http`` or ``https``.
        """
        origin = origin_of(peer, fields, self.trusted_proxies, scheme=scheme)
        return origin.client, origin.scheme

    def make_room(self) -> bool:
        """Refuse the waiting calls of one request, so that a full server can take another one. Return whether it did.

        A request is refused only if it waits for an upstream that completes no call and holds many requests
        (``upstream/calls/bulkhead.py``, "Pressed").
        """
        runtime = self.current_runtime
        return runtime is not None and runtime.overload_manager.make_room()

    def add_server(self, server: ServerState) -> None:
        """Include the counters of one of Umbel's own servers in the statistics.

        Remembers whether the server has a ``root_path``: then every request goes through Quart.
        """
        self._servers.add(server)
        # A root_path of any server counts: the requests of the others only lose their shortcut.
        self._has_root_path = self._has_root_path or bool(server.root_path)

    def open_routes(self) -> None:
        """Decide which requests are answered before Quart, and refuse further registrations. Called at startup.

        Raises:
            ConfigError: ``hooks = "python"`` skips a hook that may be a login, and a route has no ``auth``.
        """
        raise NotImplementedError

    @property
    def task_frames(self) -> Frames:
        """The readers of the frames that hold requests and calls, for the task tree."""
        return FRAMES

    def figures(self) -> tuple[Values, Exemplars]:
        """The values and exemplars of the application's metrics, as in ``ProcessFigures``; empty before startup.

        After shutdown they are the final ones. In the trio thread.
        """
        runtime = self.gateway_context.serving.last_runtime
        return ({}, {}) if runtime is None else application_figures(runtime)

    def kept_requests(self) -> KeptRequests | None:
        """The requests whose timelines are kept; None before startup."""
        runtime = self.gateway_context.serving.last_runtime
        return None if runtime is None else runtime.recorder.kept

    def upstream_snapshots(self) -> Snapshots:
        """The snapshots of the upstreams as dictionaries, by name; empty before startup and afterwards.

        An upstream whose client is replaced by an httpx transport has none. In the trio thread.
        """
        runtime = self.current_runtime
        callers = {} if runtime is None else runtime.callers
        # The mappings of a snapshot are read-only views, which ``dataclasses.asdict`` cannot copy.
        return {
            name: msgspec.to_builtins(each.statistics(), str_keys=True, enc_hook=dict)
            for name, each in callers.items()
            if isinstance(each, Client)
        }

    def statistics(self) -> GatewayStatistics:
        """A frozen snapshot of the counters. While the application serves, it must be called in the trio thread."""
        runtime = self.current_runtime
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
            sum(each.streams for each in servers),
            () if runtime is None else authenticator_statistics(runtime.authenticators.values(), runtime.redactor),
            () if runtime is None else tuple(each.statistics() for each in runtime.limiters.values()),
        )
