"""``umbel serve``: serve the configured routes, or any ASGI application, in this process or under a master.

Settings come from umbel.toml and hypercorn.toml; options take precedence over both.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import ConfigError, ConfigProblem
from .option_types import COUNT, COUNT_OR_NONE, DELAY, DURATION, HANG_TIMEOUT, SIZE
from .options import allow_empty_option, config_option, hypercorn_beside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ..admin.settings import AdminSettings
    from ..core.events import Recorder
    from ..observe.process.server_view import ServerView
    from ..supervisor.master.options import Application
    from ..supervisor.master.settings import CommandLine, Settings

_SETTINGS = ("graceful_timeout", "max_requests", "max_requests_jitter", "pid_path")
"""The options that are keys of hypercorn.toml; the others are keys of ``[supervisor]``."""


@click.command(short_help="Serve the configured routes or an ASGI application.")
@click.argument("app", required=False, metavar="[MODULE:APP]")
@config_option
@click.option(
    "--bind",
    "-b",
    multiple=True,
    metavar="ADDRESS",
    help="Listen on HOST:PORT or unix:PATH; may be given several times.",
)
@click.option(
    "--hypercorn",
    "hypercorn_file",
    metavar="FILE",
    help="The settings file of the server.  [default: hypercorn.toml beside the configuration, if it exists]",
)
@click.option("--workers", "-w", type=int, metavar="N", help="Start a master and N worker processes.")
@click.option("--pid", "pid_path", metavar="FILE", help="Write the process id to FILE, and keep FILE locked.")
@click.option("--graceful-timeout", type=DELAY, metavar="TIME", help="Time for requests in flight after a stop signal.")
@click.option("--max-requests", type=COUNT, metavar="N", help="Replace a worker after N requests; without -w, stop.")
@click.option(
    "--max-requests-jitter", type=COUNT_OR_NONE, metavar="N", help="Add a random number, at most N, to --max-requests."
)
@click.option("--max-rss", type=SIZE, metavar="SIZE", help="Replace a worker whose memory exceeds SIZE.")
@click.option("--max-lifetime", type=DURATION, metavar="TIME", help="Replace a worker after TIME.")
@click.option("--start-timeout", type=DURATION, metavar="TIME", help="Kill a worker that is not ready after TIME.")
@click.option(
    "--hang-timeout",
    type=HANG_TIMEOUT,
    metavar="TIME",
    help="Replace a worker whose event loop is blocked for TIME; without -w, write all stacks to stderr.",
)
@click.option(
    "--orphan-grace", type=DURATION, metavar="TIME", help="Time for requests in flight after the master has died."
)
@click.option(
    "--restart-max-delay", type=DURATION, metavar="TIME", help="The longest delay before a worker is restarted."
)
@click.option(
    "--intensity-restarts",
    type=COUNT,
    metavar="N",
    help="Restarts that are allowed within --intensity-window: N times the number of workers, in all.",
)
@click.option("--intensity-window", type=DURATION, metavar="TIME", help="The period in which restarts are counted.")
@click.option(
    "--on-intensity", type=click.Choice(["degrade", "exit"]), help="After too many restarts: restart slowly, or stop."
)
@click.option("--quiet", "-q", is_flag=True, help="Show no line per request on a terminal.")
@allow_empty_option
def serve(
    app: str | None,
    file: str,
    bind: tuple[str, ...],
    hypercorn_file: str | None,
    workers: int | None,
    quiet: bool,
    allow_empty: bool,
    **options: Any,
) -> None:
    """Serve the configured routes, or the ASGI application MODULE:APP, until SIGINT or SIGTERM.

    With -w a master process keeps N worker processes running (docs/supervisor.md). Without -w this process serves
    alone, and options that need a master are an error.

    After the first signal, requests in flight may take up to --graceful-timeout; a second signal cancels them. TIME is
    a number and a unit, such as 500ms, 10s or 5m; SIZE likewise, such as 500MB. Options take precedence over the files.

    Exit status: 0 after a stop; 78 if the configuration cannot be used or an address cannot be bound; 3 if no worker
    became ready; 1 for other failures.
    """
    from ..config.loading.empty_config import require_file
    from ..core.diagnostics.request_console import stderr_is_terminal
    from ..supervisor.master.options import Application
    from ..supervisor.master.settings import CommandLine

    given = {name: value for name, value in options.items() if value is not None}
    settings = {name: given.pop(name) for name in _SETTINGS if name in given}
    if app is None:
        require_file(file)
    config = file if app is None or Path(file).exists() else None
    application = Application(app, config, hypercorn_file or hypercorn_beside(file), settings)
    shows = not quiet and stderr_is_terminal()
    if workers is None:
        hang_timeout = {name: given.pop(name) for name in ("hang_timeout",) if name in given}
        if given:
            name = next(iter(given)).replace("_", "-")
            raise click.UsageError(f"--{name} needs a master; give the number of workers with -w")
        _serve_alone(CommandLine(1, application, bind, hang_timeout, allow_empty, shows))
    else:
        _serve_supervised(CommandLine(workers, application, bind, given, allow_empty, shows))


def _serve_alone(given: CommandLine) -> None:
    """Load and serve the application in this process, with one server and without a master."""
    import trio
    from hypercorn.config import Config

    from ..core.console import announce
    from ..core.diagnostics.request_console import requests_on_stderr
    from ..core.events import NULL, LogMessage
    from ..logs import crashes_on_stderr, ensure_writable
    from ..server import Limits
    from ..server import serve as serve_app
    from ..server.limits.server_limits import limits_of
    from ..server.process import gc_tuning
    from ..server.process.loop_watchdog import EVENT, watched_loop
    from ..supervisor.master.listeners import activated_sockets
    from ..supervisor.master.pidfile import pidfile
    from ..supervisor.master.settings import read_in_time, read_settings
    from ..supervisor.worker.recording import recording
    from .running import give_up, run

    application = given.application
    if activated_sockets():
        _warn("the sockets that systemd has passed are not used; only a master serves them (-w N)")
    gc_tuning.prepare()
    settings = run(partial(read_in_time, partial(read_settings, given, _warn)))
    app = _load(application, settings)
    limits = None if isinstance(getattr(app, "limits", None), Limits) else settings.limits

    def record(sentence: str) -> None:
        getattr(app, "recorder", NULL).record(LogMessage("error", EVENT, sentence))

    async def main() -> None:
        if application.app is None and settings.logs is not None:
            await ensure_writable(settings.logs)
        with pidfile(settings.options.pidfile):
            probes, required = (limits or limits_of(app)).probes, settings.logs is not None
            async with (
                recording(app, settings.log_values(), probes, _warn, required=required) as recorder,
                watched_loop(settings.options.hang_timeout, record),
                _admin_of(app, recorder, settings.admin) as view,
                trio.open_nursery() as nursery,
            ):
                server = Config.from_mapping(settings.server)
                started = partial(serve_app, app, server, limits=limits, recorder=recorder, on_state=view.watch)
                addresses = await nursery.start(started)
                view.is_started = True
                announce(addresses, getattr(app, "recorder", recorder))

    gc_tuning.apply()
    try:
        with crashes_on_stderr(), requests_on_stderr(given.shows_requests):
            run(main, app)
    except (ConfigError, click.ClickException):
        raise
    except Exception as error:  # noqa: BLE001 - a defect of Umbel or of the application
        give_up(error)


def _load(application: Application, settings: Settings) -> Any:
    """Import or make the application; exit with a sentence or a traceback if that fails."""
    from ..supervisor.worker.app_loader import AppImportError, load_app
    from .running import give_up

    try:
        return load_app(application.app, application.config, settings.routes, loaded=settings.config)
    except AppImportError as error:
        raise click.ClickException(str(error)) from error
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - an import may raise anything
        give_up(error)


@asynccontextmanager
async def _admin_of(app: Any, recorder: Recorder, settings: AdminSettings) -> AsyncGenerator[ServerView, None]:
    """Context manager: serve the admin side of ``app``, unless it does so itself, as a gateway does.

    Raises:
        ConfigError: a configured address is taken.
    """
    from ..core.diagnostics.request_console import stderr_is_terminal
    from ..core.events import LogMessage
    from ..observe.process.process_side import AdminOptions, process_admin
    from ..observe.process.server_view import ServerView

    view = ServerView(app, recorder)
    options = AdminOptions(strict=True, terminal=stderr_is_terminal())
    if hasattr(app, "admin_options"):
        app.admin_options = options
        yield view
        return

    def report(event: str, sentence: str) -> None:
        recorder.record(LogMessage("warning", event, sentence))

    async with process_admin(view, settings, report, options):
        yield view


def _serve_supervised(given: CommandLine) -> None:
    """Run a master in this process, and exit with its status."""
    from ..supervisor.master.options import WORKERS_MAX
    from ..supervisor.run import run_master
    from .running import run

    if not 1 <= given.size <= WORKERS_MAX:
        reason = f"{given.size} workers cannot be started; the number is from 1 to {WORKERS_MAX}"
        raise ConfigError([ConfigProblem("--workers", None, "", reason)])
    raise SystemExit(run(partial(run_master, given, _warn)))


def _warn(problem: object) -> None:
    click.echo(f"warning: {problem}", err=True)
