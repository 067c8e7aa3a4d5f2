"""From the files and the command line to what the master needs; at the start, and again on every reload.

Options of the command line win over both files, on a reload too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import trio
from hypercorn.config import Config as HypercornConfig

from ...config.loading.collect_errors import both
from ...config.loading.emptiness import require_routes
from ...config.loading.load import load
from ...config.schema.sections import Config, Logs
from ...core.errors import ConfigError, ConfigProblem
from ...gateway.checks import CHECKS
from ...server.limits.limits import Limits
from ...server.process.settings import Warn, hypercorn_keys
from .options import Application, Options

READING_S = 10.0
"""How long the files may take to be read."""

SettingsT = TypeVar("SettingsT")

_reading: trio.lowlevel.RunVar[trio.CapacityLimiter | None] = trio.lowlevel.RunVar("reading", None)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says."""

    size: int
    application: Application
    bind: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Options`` that win over the files."""
    allow_empty: bool = False
    """Whether umbel.toml may have no routes, or lose most of them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a master works with."""

    application: Application
    options: Options
    server: Mapping[str, Any]
    """Hypercorn's settings."""
    limits: Limits | None
    """For an application that carries none of its own; None where there is no umbel.toml."""
    logs: Logs | None
    """Where its records go; None where there is no umbel.toml."""
    routes: int = 0
    """Routes of umbel.toml."""

    def log_values(self) -> dict[str, Any]:
        """The section ``[logs]`` as plain values, or its defaults."""
        return (self.logs if self.logs is not None else Logs()).model_dump()


async def in_time(read: Callable[[], SettingsT]) -> SettingsT:
    """What ``read`` makes of files, in a thread: a disk that hangs holds up no loop.

    Raises:
        ConfigError: as ``read``; or it takes longer than ``READING_S``, and the thread is left behind.
    """
    limiter = _reading.get() or trio.CapacityLimiter(1)
    _reading.set(limiter)  # One thread at most is left behind, however often a reload is asked for.
    with trio.move_on_after(READING_S):
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=limiter)
    reason = f"the configuration could not be read within {READING_S:g} s; does the disk that it is on answer?"
    raise ConfigError([ConfigProblem("", None, "", reason)])


def read_settings(given: Given, warn: Warn | None = None, *, before: int = 0) -> Settings:
    """Read both files. ``before`` is how many routes there were the last time.

    Raises:
        ConfigError: every mistake in either of them, at once; or there are too few routes (``emptiness.py``).
    """
    application = given.application
    config, server = both(
        lambda: Config() if application.config is None else load(application.config, checks=CHECKS),
        partial(hypercorn_keys, application.hypercorn, bind=given.bind, warn=warn),
    )
    server |= application.settings
    options = replace(_options(config, HypercornConfig.from_mapping(server)), **given.overrides)
    if application.config is None:
        return Settings(application, options, server, None, None)
    if not given.allow_empty:
        # An application in Python has routes of its own, which its file says nothing of.
        require_routes(application.config, len(config.routes), before, need_some=application.app is None)
    return Settings(application, options, server, Limits.of(config.server), config.logs, len(config.routes))


def _options(config: Config, server: HypercornConfig) -> Options:
    section = config.supervisor
    return Options(
        start_timeout=section.start_timeout,
        hang_timeout=section.hang_timeout,
        orphan_grace=section.orphan_grace,
        restart_max_delay=section.restart_max_delay,
        intensity_restarts=section.intensity.restarts,
        intensity_window=section.intensity.window,
        on_intensity=section.on_intensity,
        max_rss=section.max_rss,
        max_lifetime=section.max_lifetime,
        control=section.control,
        graceful_timeout=float(server.graceful_timeout),
        drain_delay=config.server.drain_delay,
        cancel_timeout=config.server.cancel_timeout,
        pidfile=server.pid_path,
    )
