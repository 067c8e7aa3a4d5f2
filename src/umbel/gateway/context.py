"""Gateway context: the data that all requests of one application share.

``GatewayContext`` is made with the application and never replaced, so every object may keep a reference to it. Data
that changes while the application runs is in its ``ServingState`` and ``RequestCounts``. Attributes of ``ServingState``
must be read when they are needed and not be kept: the lifespan sets them at startup and removes them at shutdown.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..auth.first_keys import MissingKeysError, have_first_keys
from ..core.errors import NotRunningError, RequestError
from ..server.limits.server_limits import is_own_probe
from ..server.response.error_response import NOT_ADMITTED
from .access.query_tokens import without_parameters

if TYPE_CHECKING:
    from logging import Logger

    from ..config.schema.sections import Config
    from ..core.errors import ConfigError
    from ..core.events import Recorder
    from ..core.networks import Admission, Networks
    from ..server.limits.server_limits import Limits
    from .browsers.browser_fields import BrowserRules
    from .browsers.compression import Compression
    from .runtime import Runtime


class State(enum.StrEnum):
    """State of an application. The order is ``NEW``, ``STARTING``, ``SERVING``, ``STOPPING``, ``STOPPED``.

    ``FAILED`` follows ``STARTING``, ``SERVING`` or ``STOPPING`` if an exception ends the lifespan. An application is
    ready for requests only in ``SERVING``.
    """

    NEW = "not started"
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ServingState:
    """Data of an application that changes while it runs: state, runtime, recorder, limits and readiness.

    The lifespan writes ``state``, ``runtime`` and ``recorder``; the server ``draining``; the supervisor ``degraded``
    and ``may_lack_keys``.
    """

    __slots__ = (
        "_given_recorder",
        "admit_by_limits",
        "config_error",
        "degraded",
        "draining",
        "keys_error",
        "last_runtime",
        "limits",
        "may_lack_keys",
        "recorder",
        "runtime",
        "state",
    )

    def __init__(self, limits: Limits, recorder: Recorder) -> None:
        """``recorder`` takes records while there is no runtime: before startup and after shutdown."""
        self.state = State.NEW
        self.runtime: Runtime | None = None
        """Recorder and upstream clients; None before startup and after shutdown."""
        self.last_runtime: Runtime | None = None
        """The runtime that was opened last. Its counters are still read after shutdown."""
        self.recorder = recorder
        """The recorder that takes records now. Never None."""
        self.limits = limits
        """The limits of the server. They may be replaced before the application serves."""
        self.admit_by_limits: Callable[[Any, Mapping[str, Any]], None] | None = None
        """``RouteLimits.admit`` of the limits of all requests (``[server] limits``); None: there are none."""
        self.draining = False
        """Whether the server has begun to shut down."""
        self.degraded = False
        """Whether the supervisor reports that too many workers die."""
        self.config_error: ConfigError | None = None
        """The mistake in the configuration that made startup fail; None: there was none."""
        self.may_lack_keys: frozenset[str] | None = None
        """The keys, by ``MissingKeys.name``, without which startup may end; None: without any."""
        self.keys_error: MissingKeysError | None = None
        """The missing keys that made startup fail; None: there were none."""
        self._given_recorder = recorder

    def open(self, runtime: Runtime) -> None:
        """Make ``runtime`` and its recorder available to requests."""
        self.runtime = self.last_runtime = runtime
        self.recorder = runtime.recorder

    def close(self) -> None:
        """Remove the runtime, and return to the recorder of the constructor."""
        self.runtime, self.recorder = None, self._given_recorder

    @property
    def condition(self) -> str:
        """The state; of an application that serves and is not ready, the reason.

        The reasons are "draining", "degraded" and "waiting for keys". Any thread may ask.
        """
        if self.state is State.SERVING:
            if self.draining:
                return "draining"
            if self.degraded:
                return "degraded"
            if self.waits_for_keys:
                return "waiting for keys"
        return self.state

    @property
    def waits_for_keys(self) -> bool:
        """Whether the first keys are missing on which readiness depends (``auth/first_keys.py``)."""
        return self.runtime is not None and not have_first_keys(self.runtime.authenticators.values())

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests to this process (``/readyz``)."""
        return self.condition == State.SERVING


class RequestCounts:
    """Counters of the requests of one application."""

    __slots__ = ("in_flight", "total")

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that are being answered now."""
        self.total = 0
        """All requests so far, including those in flight."""


@dataclass(frozen=True, slots=True, eq=False)
class GatewayContext:
    """Data that all requests of one application share. Every part of the gateway gets this instead of the application.

    Nothing here waits or does I/O. All attributes may be used from any task of the application's trio run.
    """

    config: Config
    """The configuration of the application. It never changes: a reload makes a new application in a new worker."""
    proxies: Networks
    """The peers whose ``X-Forwarded-*`` and ``Forwarded`` fields are believed."""
    admission: Admission
    """The peers that may make requests. Umbel's own server refuses the others already."""
    settings: Mapping[str, Any]
    """Quart's settings (``app.config``), such as MAX_CONTENT_LENGTH. They may change at any time."""
    logger: Callable[[], Logger]
    """Returns the application's logger, which Quart makes on first use."""
    counts: RequestCounts
    """The counters of requests."""
    serving: ServingState
    """The data that changes while the application runs."""
    compression: Compression | None
    """Compresses responses; None: there is no section ``[compress]``."""
    browsers: BrowserRules
    """The fields that responses get for browsers."""
    token_parameters: frozenset[bytes] = frozenset()
    """The query parameters that are tokens for the gateway, so that nothing else may see them."""
    head_bound: str | None = None
    """Which new traces are sampled (``observe/traces/sampling.py``); None: all, because nothing is exported."""

    def visible_query(self, query: bytes) -> bytes:
        """The raw query of a request without tokens."""
        return without_parameters(query, self.token_parameters) if self.token_parameters else query

    def admits(self, scope: Mapping[str, Any]) -> bool:
        """Whether the peer of an ASGI scope may make requests."""
        if self.admission.is_for_all:
            return True
        client = scope.get("client")
        return self.admission.admits(client[0] if client else None)

    def check_admission(self, scope: Mapping[str, Any]) -> None:
        """Check that the peer of an ASGI scope may make its request.

        Raises:
            RequestError: 403, the peer is not admitted, and the request is no own probe.
        """
        if self.admits(scope):
            return
        if scope["type"] != "http" or not is_own_probe(scope["method"], scope["path"].encode()):
            raise RequestError(NOT_ADMITTED.status, NOT_ADMITTED.detail)

    def require_runtime(self) -> Runtime:
        """The runtime: recorder and upstream clients. Requests must use it only until they end.

        Raises:
            RequestError: 503, the application has not started or has stopped.
        """
        runtime = self.serving.runtime
        if runtime is None:
            state = self.serving.state
            error = NotRunningError(
                f"a request came while the application is {state}; the server must run the ASGI lifespan first"
            )
            self.logger().error(str(error))
            raise RequestError(503, "The gateway is not ready.") from error
        return runtime
