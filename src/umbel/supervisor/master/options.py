"""What a master is to do, as one value: how many workers of what, and every time that it keeps.

Made by the command line (and on every reload by ``settings.py``), read by the rest of the package. Times are seconds,
sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WORKERS_MAX = 256
CANCEL_S = 5.0
"""Between the cut of what is in flight and SIGKILL: cleanup, the lifespan's end, the last records."""
QUICK_S = 2.0
"""What a quick stop leaves a worker."""
ABORT_S = 2.0
"""Between SIGABRT, which has the stack written, and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Application:
    """What the workers serve."""

    app: str | None = None
    """``module:app``; None for what the configuration describes."""
    config: str | None = None
    """umbel.toml."""
    hypercorn: str | None = None
    """hypercorn.toml."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of Hypercorn's that win over the file."""

    @property
    def name(self) -> str:
        """What the application is called in titles and in the log."""
        return self.app or self.config or "umbel"


@dataclass(frozen=True, slots=True)
class Options:
    """How workers are kept; ``docs/supervisor.md`` says what each value does."""

    start_timeout: float = 30.0
    hang_timeout: float = 10.0
    orphan_grace: float = 5.0
    restart_max_delay: float = 15.0
    intensity_restarts: int = 3
    """Restarts per worker within ``intensity_window`` that are not yet too many."""
    intensity_window: float = 60.0
    on_intensity: Literal["degrade", "exit"] = "degrade"
    max_rss: int | None = None
    max_lifetime: float | None = None
    control: str | None = None
    graceful_timeout: float = 20.0
    drain_delay: float = 0.0
    cancel_timeout: float = CANCEL_S
    pidfile: str | None = None

    @property
    def heartbeat_every(self) -> float:
        """Seconds between two heartbeats: several fit into ``hang_timeout``."""
        return min(1.0, self.hang_timeout / 5)
