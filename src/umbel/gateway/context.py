"""What the requests of one application share: configuration, settings, counters, and what is open while it serves.

``GatewayContext`` is frozen, so that whoever holds one never holds an old one. All that changes stands in its
``ServingState``, which the lifespan opens and closes. Its attributes are read when they are needed, and never kept.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import NotRunningError, RequestError

if TYPE_CHECKING:
    from logging import Logger

    from ..config.schema.sections import Config
    from ..core.errors import ConfigError
    from ..core.events import Recorder
    from ..server.limits.server_limits import Limits
    from .request.client_origin import TrustedProxies
    from .runtime import Runtime


class State(enum.StrEnum):
    """Where an application stands. Requests belong between ``SERVING`` and ``STOPPING``."""

    NEW = "not started"
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ServingState:
    """Where an application stands, what is open meanwhile, and what the server and the supervisor have said."""

    __slots__ = ("_given_recorder", "config_error", "degraded", "draining", "limits", "recorder", "runtime", "state")

    def __init__(self, limits: Limits, recorder: Recorder) -> None:
        """``recorder`` takes the records while the application is not open."""
        self.state = State.NEW
        self.runtime: Runtime | None = None
        """What is open between startup and shutdown."""
        self.recorder = recorder
        """Where records go at the moment."""
        self.limits = limits
        """The bounds of the server. An application may replace them before it serves."""
        self.draining = False
        """Whether the server has been asked to stop."""
        self.degraded = False
        """Whether the supervisor says that too many workers die."""
        self.config_error: ConfigError | None = None
        """Why the configuration kept the application from starting, where that showed only then."""
        self._given_recorder = recorder

    def open(self, runtime: Runtime) -> None:
        """From now on requests use ``runtime``."""
        self.runtime, self.recorder = runtime, runtime.recorder

    def close(self) -> None:
        """From now on no request has a runtime."""
        self.runtime, self.recorder = None, self._given_recorder

    @property
    def ready(self) -> bool:
        """Whether requests should come here: the recorder and the pools are open, and nobody has said otherwise."""
        return self.state is State.SERVING and not self.draining and not self.degraded


class RequestCounts:
    """Counters that each request adds itself to, and takes itself off."""

    __slots__ = ("in_flight", "total")

    def __init__(self) -> None:
        self.in_flight = 0
        self.total = 0


@dataclass(frozen=True, slots=True, eq=False)
class GatewayContext:
    """What the requests of one application share; made with the application."""

    config: Config
    proxies: TrustedProxies
    settings: Mapping[str, Any]
    """Quart's, such as MAX_CONTENT_LENGTH. They may change at any time."""
    logger: Callable[[], Logger]
    """The application's logger, which Quart makes when it is first asked for."""
    counts: RequestCounts
    serving: ServingState

    def require_runtime(self) -> Runtime:
        """The open recorder and transports.

        Raises:
            RequestError: 503, the application is not between startup and shutdown.
        """
        runtime = self.serving.runtime
        if runtime is None:
            state = self.serving.state
            error = NotRunningError(f"a request came while the application is {state}; did its lifespan run?")
            self.logger().error(str(error))
            raise RequestError(503, "The gateway is not ready.") from error
        return runtime
