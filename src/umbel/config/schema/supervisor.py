"""The section ``[supervisor]``: how the master of ``umbel serve -w N`` keeps its workers.

How many workers there are stands on the command line, and what Hypercorn has a key for
(``graceful_timeout``, ``max_requests``, ``pid_path``, ...) in hypercorn.toml.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .section import Section
from .units import Duration, Size, parse_duration

HANG_S_MIN = 0.1
"""Seconds: a sound event loop is busy for some milliseconds, and each check of it costs some."""


def _long_enough(seconds: float) -> float:
    if seconds < HANG_S_MIN:
        raise ValueError("must be at least 100ms: a loop at work is silent for a few milliseconds")
    return seconds


def parse_hang_timeout(value: object) -> float:
    """Return the seconds of a ``hang_timeout``.

    Raises:
        ValueError: it is no duration, or too short a one.
    """
    return _long_enough(parse_duration(value))


HangTimeout = Annotated[Duration, AfterValidator(_long_enough)]


class Intensity(Section):
    """How many workers may die."""

    restarts: Annotated[int, Field(ge=1)] = 3
    """Restarts for each worker within the window; one more and the whole is degraded."""
    window: Duration = 60.0
    """The time within which they are counted."""


class Supervisor(Section):
    """How the master keeps its workers; for `umbel serve -w N` alone, but for hang_timeout."""

    start_timeout: Duration = 30.0
    """How long a worker may take until it is ready."""
    hang_timeout: HangTimeout = 10.0
    """How long a worker may send no heartbeat before it is replaced. Without -w: how long the loop may be blocked
    until the process writes to stderr where it stands."""
    orphan_grace: Duration = 5.0
    """What requests in flight get when the master is gone."""
    restart_max_delay: Duration = 15.0
    """The longest wait before a worker that keeps dying is started again."""
    intensity: Intensity = Intensity()
    """How many workers may die."""
    on_intensity: Literal["degrade", "exit"] = "degrade"
    """What becomes of too many restarts: go on with what works, /readyz being 503, or exit with status 1."""
    max_rss: Size | None = None
    """Memory from which on a worker is replaced. Default: none."""
    max_lifetime: Duration | None = None
    """Age from which on a worker is replaced. Default: none."""
    control: str | None = None
    """The Unix socket that `umbel ctl` talks to. Default: none."""
