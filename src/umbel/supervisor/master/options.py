"""The options of a master: which application, and every time limit and bound. Seconds and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WORKERS_MAX = 256
CANCEL_S = 5.0
"""Between the cancel of what is in flight and SIGKILL: for cleanup, the end of the lifespan and the last records."""
QUICK_S = 2.0
"""The time that a worker has in a quick stop."""
ABORT_S = 2.0
"""Between SIGABRT, at which the worker writes its stack, and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Application:
    """The application that the workers serve."""

    app: str | None = None
    """``module:app``; None for what the configuration describes."""
    config: str | None = None
    """The path of umbel.toml."""
    hypercorn: str | None = None
    """The path of hypercorn.toml."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hypercorn's keys, which take precedence over the file."""

    @property
    def name(self) -> str:
        """The name of the application in process titles and in the log."""
        return self.app or self.config or "umbel"


@dataclass(frozen=True, slots=True)
class Options:
    """The limits of the workers; ``docs/supervisor.md`` says what each value does."""

    start_timeout: float = 30.0
    hang_timeout: float = 10.0
    orphan_grace: float = 5.0
    restart_max_delay: float = 15.0
    intensity_restarts: int = 3
    """Restarts per worker that are allowed within ``intensity_window``."""
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
        """Seconds between two heartbeats, at most a fifth of ``hang_timeout``."""
        return min(1.0, self.hang_timeout / 5)
