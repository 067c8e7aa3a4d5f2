"""The section ``[supervisor]``: how the master of ``umbel serve -w N`` keeps its workers running.

The number of workers is an option of the command line. Settings for which Hypercorn has a key (``graceful_timeout``,
``max_requests``, ``pid_path``, ...) are in hypercorn.toml.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ..section import Section
from ..values.units import Duration, Size, parse_duration

HANG_S_MIN = 0.1
"""Seconds: the lowest ``hang_timeout``. A normal event loop is busy for some milliseconds at a time."""


def _long_enough(seconds: float) -> float:
    if seconds < HANG_S_MIN:
        raise ValueError("must be at least 100ms: a normal event loop is busy for some milliseconds")
    return seconds


def parse_hang_timeout(value: object) -> float:
    """Parse a ``hang_timeout`` such as ``"10s"``; return its seconds.

    Raises:
        ValueError: ``value`` is no duration, or is below ``HANG_S_MIN``.
    """
    return _long_enough(parse_duration(value))


HangTimeout = Annotated[Duration, AfterValidator(_long_enough)]


class Intensity(Section):
    """The restart intensity: the number of restarts above which the master is degraded or exits."""

    restarts: Annotated[int, Field(ge=1)] = 3
    """The most restarts within the window, as a multiple of the number of workers. The restarts of all workers count
    together."""
    window: Duration = 60.0
    """The length of the sliding window within which restarts count."""


class Supervisor(Section):
    """How the master of `umbel serve -w N` keeps its workers running. Without -w only hang_timeout has an effect."""

    start_timeout: Duration = 30.0
    """The longest time until a started worker is ready. Then it is killed."""
    hang_timeout: HangTimeout = 10.0
    """The longest time without any message from a ready worker to the master. Then the worker is killed and replaced.
    Without -w: the time after which a process with a blocked event loop writes its stacks to stderr."""
    orphan_grace: Duration = 5.0
    """The time for the requests in flight of a worker whose master has ended."""
    restart_max_delay: Duration = 15.0
    """The longest delay before a worker that has died is restarted. The delay grows with each death in a row, and is 0
    if the worker had been ready for 10 s."""
    intensity: Intensity = Field(default_factory=Intensity)
    """The restart intensity: the number of restarts above which the master is degraded or exits."""
    on_intensity: Literal["degrade", "exit"] = "degrade"
    """What happens above the restart intensity. degrade: the running workers serve on, restarts are slow, and /readyz
    gives 503; exit: the master exits with status 1."""
    max_rss: Size | None = None
    """The memory (RSS) above which a worker is replaced. Default: none."""
    max_lifetime: Duration | None = None
    """The age at which a worker is replaced. Default: none."""
