"""The settings of a master, read from umbel.toml, hypercorn.toml and the command line at the start and on each reload.

Options of the command line take precedence over both files, on each reload too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import trio
from hypercorn.config import Config as HypercornConfig

from ...admin.settings import AdminSettings
from ...config.hypercorn_toml.settings import Warn, hypercorn_keys
from ...config.loading.empty_config import require_routes
from ...config.loading.errors.collect_errors import collect_errors
from ...config.loading.load import load
from ...config.schema.access.credential_names import logs_of
from ...config.schema.sections import Config, Logs
from ...core.errors import ConfigError, ConfigProblem
from ...gateway.checks import CHECKS
from ...gateway.operation.admin import admin_settings
from ...server.limits.server_limits import Limits
from .options import Application, Options

READ_S_MAX = 60.0
"""The time limit for reading and checking the files, in seconds: 10,000 routes take some seconds of CPU."""

SettingsT = TypeVar("SettingsT")

_reading: trio.lowlevel.RunVar[trio.CapacityLimiter | None] = trio.lowlevel.RunVar("reading", None)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The options and arguments of the command line."""

    size: int
    """The number of workers."""
    application: Application
    bind: Sequence[str] = ()
    """The addresses to bind; empty: those of hypercorn.toml."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The fields of ``Options`` that were given on the command line; they take precedence over the files."""
    allow_empty: bool = False
    """Whether umbel.toml may have no routes, or lose most of them on a reload."""
    shows_requests: bool = False
    """Whether a line for each request is written to stderr, which is a terminal."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that the files and the command line give together."""

    application: Application
    options: Options
    server: Mapping[str, Any]
    """Hypercorn's settings."""
    limits: Limits | None
    """The server's limits, for an application without limits of its own; None without umbel.toml."""
    logs: Logs | None
    """The section ``[logs]``; None without umbel.toml."""
    admin: AdminSettings
    """The admin side."""
    routes: int = 0
    """The number of routes in umbel.toml."""
    shows_requests: bool = False
    """As in ``CommandLine``."""
    config: Config | None = field(default=None, repr=False, compare=False)
    """The configuration; None without umbel.toml."""
    changes: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """What a reload has changed (``config.display.rows.changes_of``); None before the first one."""

    def log_values(self) -> dict[str, Any]:
        """Return the section ``[logs]``, or its defaults, as plain values."""
        return (self.logs if self.logs is not None else Logs()).model_dump()


async def read_in_time(read: Callable[[], SettingsT]) -> SettingsT:
    """Call ``read`` in a thread, so that a disk that hangs does not block the event loop; return its result.

    A cancel and the time limit abandon the thread. A later call waits for an abandoned thread, within its own limit.

    Raises:
        ConfigError: raised by ``read``; or there is no result within ``READ_S_MAX``.
    """
    limiter = _reading.get() or trio.CapacityLimiter(1)
    _reading.set(limiter)  # One thread at a time, also an abandoned one, however many reloads are requested.
    with trio.move_on_after(READ_S_MAX):
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=limiter)
    reason = f"the configuration was not read within {READ_S_MAX:g} s; check the disk of its files"
    raise ConfigError([ConfigProblem("", None, "", reason)])


def read_settings(given: CommandLine, warn: Warn | None = None, *, before: int = 0) -> Settings:
    """Read umbel.toml and hypercorn.toml, and combine them with the command line. Blocking.

    Args:
        given: the command line, which names the files.
        warn: called with each warning about hypercorn.toml; None: no warnings.
        before: the number of routes at the previous reading; 0 at the first.

    Raises:
        ConfigError: all mistakes in both files; or umbel.toml has no routes, or far fewer than ``before``
            (``empty_config.py``).
    """
    application = given.application
    config, server = collect_errors(
        lambda: Config() if application.config is None else load(application.config, checks=CHECKS),
        partial(hypercorn_keys, application.hypercorn, bind=given.bind, warn=warn),
    )
    server |= application.settings
    options = replace(_options(config, HypercornConfig.from_mapping(server)), **given.options)
    if application.config is None:
        admin = admin_settings(config)
        return Settings(application, options, server, None, None, admin, shows_requests=given.shows_requests)
    if not given.allow_empty:
        # An application in Python may have all of its routes in code.
        require_routes(application.config, len(config.routes), before, need_some=application.app is None)
    return Settings(
        application,
        options,
        server,
        Limits.of(config.server),
        logs_of(config),
        admin_settings(config),
        len(config.routes),
        given.shows_requests,
        config,
    )


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
        graceful_timeout=float(server.graceful_timeout),
        drain_delay=config.server.drain_delay,
        cancel_timeout=config.server.cancel_timeout,
        pidfile=server.pid_path,
    )
