"""``umbel check``: report all mistakes of a configuration.

It checks umbel.toml and the hypercorn.toml beside it, and only reads files: it calls no upstream, opens no port and
writes no log. With ``--app`` it also starts and stops the application, in a process of its own.

Exit status: 0 or 78; 1 if the application of ``--app`` fails for another reason than its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config.loading.empty_config import require_file, require_routes
from ..config.schema.sections import Config
from ..core.errors import ConfigError, ConfigProblem
from . import EXIT_CONFIG
from .options import allow_empty_option, config_option, hypercorn_beside, load_with_warnings

if TYPE_CHECKING:
    from ..config.loading.load import LoadedConfig
    from ..supervisor.trial_start import CheckFailure


@click.command(short_help="Check the configuration and report every mistake in it.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
@click.option(
    "--app",
    is_flag=False,
    flag_value="",
    metavar="[MODULE:APP]",
    help="Also start and stop the application once, in its own process; without MODULE:APP, the configured gateway.",
)
@allow_empty_option
@click.pass_context
def check(ctx: click.Context, file: str, as_json: bool, app: str | None, allow_empty: bool) -> None:
    """Check the configuration and report every mistake in it, one per line: FILE:LINE: KEY: REASON.

    A line that begins with "warning: " is about a value that is valid, but probably does not do what was meant, such as
    two limits that contradict each other.

    Exit status: 0 if the configuration can be used, 78 if not; 1 if the application does not start or stop.
    """
    try:
        loaded = _loaded(file, app)
        config = loaded.config
        if not app and not allow_empty:  # An application in Python may have all of its routes in code.
            require_routes(file, len(config.routes))
    except ConfigError as error:
        if not as_json:
            raise
        _print({"ok": False, "file": file, "problems": [asdict(problem) for problem in error.problems]})
        ctx.exit(EXIT_CONFIG)
    if app is not None and (trouble := _start(file, app)) is not None:
        if as_json:
            _print({"ok": False, "file": file, "app": trouble.reason})
        elif trouble.misconfigured:
            click.echo(trouble.reason, err=True)
        else:
            click.echo(f"{app or file}: the application does not start or does not stop: {trouble.reason}", err=True)
        ctx.exit(EXIT_CONFIG if trouble.misconfigured else 1)
    counts = {
        "upstream": len(config.upstreams),
        "route": len(config.routes),
        "call": sum(len(route.calls) for route in config.routes),
    }
    if as_json:
        warned = {"warnings": [asdict(warning) for warning in loaded.warnings]} if loaded.warnings else {}
        _print({"ok": True, "file": file, **{f"{word}s": count for word, count in counts.items()}, **warned})
    else:
        for warning in loaded.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{file}: ok, {', '.join(_counted(count, word) for word, count in counts.items())}")


def _loaded(file: str, app: str | None) -> LoadedConfig:
    """Load the configuration, with the warnings about both files.

    Raises:
        ConfigError: all mistakes of both files.
    """
    from ..config.hypercorn_toml.settings import hypercorn_keys
    from ..config.loading.errors.collect_errors import collect_errors
    from ..config.loading.load import LoadedConfig

    if not app:
        require_file(file)
    warnings: list[ConfigProblem] = []
    loaded, _ = collect_errors(
        lambda: LoadedConfig(Config(), str) if app and not Path(file).exists() else load_with_warnings(file),
        partial(hypercorn_keys, hypercorn_beside(file), warn=warnings.append, permissions=True),
    )
    warnings += _separate_limits(loaded.config, warnings)
    return loaded._replace(warnings=(*loaded.warnings, *warnings))


def _separate_limits(config: Config, warnings: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    """The warning that the workers of the hypercorn command do not share limits, if ``warnings`` have these workers."""
    names = ", ".join(name for name, limit in config.limits.items() if limit.shared == "machine")
    reason = f"each of these workers counts by itself for the limits {names}; umbel serve -w N counts for all of them"
    return [replace(each, reason=reason) for each in warnings if each.key == "workers" and names]


def _start(file: str, app: str) -> CheckFailure | None:
    """Start and stop the application in a process; return why that failed, or None."""
    from ..supervisor.master.options import Application
    from ..supervisor.master.settings import CommandLine, read_settings
    from ..supervisor.trial_start import check_app
    from .running import run

    config = file if Path(file).exists() else None
    settings = read_settings(CommandLine(1, Application(app or None, config, hypercorn_beside(file)), allow_empty=True))
    return run(partial(check_app, settings))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _print(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result, ensure_ascii=False))
