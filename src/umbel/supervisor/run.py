"""Startup and shutdown of the master process: settings, pidfile, sockets, logs and process title around ``Master.run``.

Whatever ends the master, everything that was opened here is closed here, in reverse order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import trio
from hypercorn.config import Config as HypercornConfig
from setproctitle import setproctitle

from ..admin.listeners import terminal_listener
from ..admin.side import AdminSide
from ..config.display.rows import changes_of
from ..config.hypercorn_toml.settings import Warn
from ..core.console import own_stderr
from ..core.diagnostics.request_console import stderr_is_terminal
from ..core.errors import ConfigError, ConfigProblem
from ..logs import Redactor, open_recorder
from .control.admin_source import MasterSource
from .master.console_output import ConsoleOutput
from .master.listeners import Listeners, activated_sockets, bound
from .master.master import Master
from .master.options import Application
from .master.pidfile import pidfile
from .master.sd_notify import SystemdNotifier
from .master.settings import CommandLine, Settings, read_in_time, read_settings


async def run_master(given: CommandLine, warn: Warn | None = None) -> int:
    """Run a master until it is stopped; return the exit status (``exit_status.py``). A cancel kills the workers.

    Args:
        given: the options and arguments of the command line.
        warn: called with each warning about the settings at the start; None: no warnings.

    Raises:
        ConfigError: the settings, the pidfile, an address of the admin side or a log file cannot be used; no worker was
            started.
        OSError: an address cannot be bound; no worker was started.
    """
    settings = await read_in_time(partial(read_settings, given, warn))
    notifier = SystemdNotifier()
    async with AsyncExitStack() as stack:
        console = ConsoleOutput(stack.enter_context(own_stderr()))
        stack.enter_context(pidfile(settings.options.pidfile))
        listeners = stack.enter_context(bound(HypercornConfig.from_mapping(settings.server), activated_sockets()))
        admin = AdminSide(
            settings.admin, partial(_report, console), terminal=terminal_listener if stderr_is_terminal() else None
        )
        stack.callback(admin.close)
        admin.open_addresses()
        if settings.logs is not None:
            console.recorder = await stack.enter_async_context(open_recorder(settings.logs))
        # systemd means these for the master: a child must not take the sockets for its own.
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        setproctitle(f"umbel: master [{settings.application.name}]")

        async def reread(before: Settings, allow_empty: bool) -> Settings:
            again = replace(given, allow_empty=given.allow_empty or allow_empty)
            return await read_in_time(partial(_reread, again, listeners, before))

        return await _run(Master(given.size, settings, listeners, console, reread=reread, notifier=notifier), admin)


async def _run(master: Master, admin: AdminSide) -> int:
    async with trio.open_nursery() as nursery:
        source = MasterSource(master)
        nursery.start_soon(source.run)
        await nursery.start(admin.run, source)
        if stderr_is_terminal() and (url := admin.page_url()) is not None:
            # To the terminal only: the URL holds a token, which must not be in a log.
            master.console.write(f"The console (this URL opens it once): {url}\n".encode())
        status = await master.run()
        nursery.cancel_scope.cancel(reason="the master has ended")
    return status


def _report(console: ConsoleOutput, event: str, sentence: str) -> None:
    """Report a failure of the admin side, which ends nothing."""
    console.report("warning", event, Redactor().text(sentence))


def _reread(given: CommandLine, listeners: Listeners, before: Settings) -> Settings:
    """Read the settings anew. Settings that only a restart can change must equal those of ``before``.

    Raises:
        ConfigError: the settings cannot be used, or need a restart.
    """
    settings = read_settings(given, before=before.routes)
    binds = ("bind", "insecure_bind") if listeners.tls else ("bind",)
    needs_restart: list[tuple[str, Callable[[Settings], object]]] = [
        ("bind", lambda each: [each.server.get(name) for name in binds]),
        ("pid_path", lambda each: each.options.pidfile),
        ("admin.bind", lambda each: each.admin.bind),
        ("admin.token", lambda each: each.admin.token),
        ("admin.metrics", lambda each: each.admin.metrics),
        ("certfile", lambda each: "certfile" in each.server),
    ]
    changed = [name for name, value in needs_restart if value(settings) != value(before)]
    if changed:
        raise ConfigError([_fixed(name, given.application) for name in changed])
    if before.config is None or settings.config is None:
        return settings
    return replace(settings, changes=changes_of(before.config, settings.config))


def _fixed(name: str, application: Application) -> ConfigProblem:
    """The problem of a setting that only a restart can change."""
    reason = "cannot be changed by a reload; restart the master"
    section, dot, key = name.rpartition(".")
    if dot:
        # The name of the key is in the sentence: the redactor would take what follows "token: " for a secret.
        return ConfigProblem(application.config or "", None, section, f"{key} {reason}")
    if name == "certfile":
        reason = "TLS cannot be turned on or off by a reload; restart the master"
    return ConfigProblem(application.hypercorn or "", None, name, reason)
