"""The options of a master: the application, time limits and bounds. Times in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WORKERS_MAX = 256
CANCEL_S = 5.0
"""Seconds between the cancel of requests in flight and SIGKILL: for cleanup, lifespan shutdown and the last records."""
QUICK_S = 2.0
"""Seconds that a worker has to end in a quick stop."""
ABORT_S = 2.0
"""Seconds between SIGABRT, at which the worker writes its stacks, and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Application:
    """The application that the workers serve."""

    app: str | None = None
    """``module:app``; None for the gateway of the configuration."""
    config: str | None = None
    """The path of umbel.toml."""
    hypercorn: str | None = None
    """The path of hypercorn.toml."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of Hypercorn that take precedence over hypercorn.toml."""

    @property
    def name(self) -> str:
        """The name of the application in process titles and in the log."""
        return self.app or self.config or "umbel"


@dataclass(frozen=True, slots=True)
class Options:
    """The time limits and bounds of master and workers."""

    start_timeout: float = 30.0
    """The time within which a started worker must be ready; otherwise it is killed."""
    hang_timeout: float = 10.0
    """The time without any message after which a ready worker counts as hung and is killed."""
    orphan_grace: float = 5.0
    """The time of a worker's drain after its master has ended."""
    restart_max_delay: float = 15.0
    """The bound on the delay before a restart."""
    intensity_restarts: int = 3
    """The restarts that are allowed within ``intensity_window``, divided by the number of workers."""
    intensity_window: float = 60.0
    """The sliding window of the restart intensity."""
    on_intensity: Literal["degrade", "exit"] = "degrade"
    """What the master does after more restarts than are allowed: become degraded, or exit with status 1."""
    max_rss: int | None = None
    """The resident memory above which a worker is recycled; None: no bound."""
    max_lifetime: float | None = None
    """The age above which a worker is recycled; None: no bound."""
    graceful_timeout: float = 20.0
    """The time that requests in flight have in a drain, before they are cancelled."""
    drain_delay: float = 0.0
    """The time for which a stopping worker still accepts connections."""
    cancel_timeout: float = CANCEL_S
    """The time between the cancel of requests in flight and SIGKILL."""
    pidfile: str | None = None
    """The path of the pidfile; None: there is none."""

    @property
    def heartbeat_every(self) -> float:
        """The time between two heartbeats: one second, or a fifth of ``hang_timeout`` if that is shorter."""
        return min(1.0, self.hang_timeout / 5)
