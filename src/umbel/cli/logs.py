"""``umbel logs tail`` and ``umbel logs stat``: print records for people or as JSON lines, and compute statistics.

Both only read files, including rotated and compressed ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .option_types import COUNT_OR_ALL

if TYPE_CHECKING:
    from .records.log_files import LogFiles

_POLL_S = 0.2


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "-c",
            "--config",
            "config",
            metavar="FILE",
            default="umbel.toml",
            envvar="UMBEL_CONFIG",
            show_default=True,
            show_envvar=True,
            help="The configuration file, which names the files of access, calls and app.",
        ),
    ):
        command = option(command)
    return command


@click.group(short_help="Show log records, or statistics about them.")
def logs() -> None:
    """Show log records, or statistics about them.

    LOG is the path of a file, or one of access, calls and app: the files in the configuration. To search, use jq:

    \b
    umbel logs tail -n all --json access |
      jq -c 'select(."http.response.status_code" >= 500)'
    """


@logs.command(short_help="Show the last records; with --follow new ones too.")
@click.argument("log", default="access")
@click.option(
    "--lines",
    "-n",
    default=10,
    show_default=True,
    type=COUNT_OR_ALL,
    metavar="N|all",
    help="How many records to print.",
)
@click.option(
    "--follow", "-f", is_flag=True, help="Wait for new records and print them, also after a rotation, until Ctrl-C."
)
@_shared
@click.option("--color/--no-color", default=None, help="Use colours.  [default: on a terminal]")
def tail(log: str, lines: int | None, follow: bool, config: str, as_json: bool, color: bool | None) -> None:
    """Show the last records of LOG (default: access), and with --follow new ones too.

    Rotated and compressed files are read too. With --json each record is a line as in the file.
    """
    from .records.log_files import Follower, LogFiles
    from .records.printer import Printer, wait_while_read

    path = _path(log, config, may_come=follow)
    printer = Printer(as_json=as_json, coloured=sys.stdout.isatty() if color is None else color)
    follower = Follower(path) if follow else None
    with LogFiles(path, follower) as files:
        printed = printer.print(files.lines() if lines is None else files.last(lines))
    if follower is None:
        _end(printed, files)
        return
    while True:
        printer.print(follower.read())
        wait_while_read(_POLL_S)


@logs.command(short_help="Count statuses, latencies and lost records.")
@click.argument("log", default="access")
@click.option("--by", metavar="FIELD", help="Add a row for each value of FIELD, such as http.route.")
@_shared
def stat(log: str, by: str | None, config: str, as_json: bool) -> None:
    """Show statistics of LOG (default: access): statuses, latencies, calls, and the records that were lost.

    All files of LOG are read, rotated and compressed ones too. The figures of calls come from the records of requests,
    also for the log calls of the configuration, because not every call has a record of its own.
    """
    import json

    from .records.log_files import LogFiles
    from .records.statistics import NOT_COMBINED, LogStatistics, rendered

    statistics = LogStatistics(by)
    requests, statistics.note = _requests_with_calls(log, config)
    read: list[LogFiles] = []
    if requests is None:
        with LogFiles(_path(log, config)) as files:
            read.append(files)
            for line in files.lines():
                statistics.add(line)
        count = statistics.records + statistics.not_records
    else:
        with LogFiles(requests) as files:
            read.append(files)
            for line in files.lines():
                statistics.add_calls(line)
        count = sum(row.outcomes.total() for row in statistics.calls.values())
        if (own := _configured_path(log, config)) is not None:
            with LogFiles(own) as files:
                read.append(files)
                for line in files.lines():
                    statistics.add(line, figures=False)
    click.echo(json.dumps(statistics.as_dict(), ensure_ascii=False) if as_json else rendered(statistics))
    _end(count, *read)
    if count and by is not None and not statistics.has_by:
        of = f"{count} records" if requests is None else f"{count} calls in {requests.name}"
        hint = f"; lines in the combined format have no {NOT_COMBINED}" if statistics.combined else ""
        if requests is not None:
            hint = "; to count the records of the log calls itself, give the path of its file"
        raise click.ClickException(f"none of {of} has a field {by}{hint}")


class _RemovedCommandError(click.ClickException):
    """The error of a removed command, with the exit status of a usage error."""

    exit_code = 2


@logs.command(hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def grep(arguments: tuple[str, ...]) -> None:
    """Fail with the command that replaces this one."""
    raise _RemovedCommandError(
        "umbel logs grep was removed; write: umbel logs tail -n all --json access |"
        " jq -c 'select(.\"http.response.status_code\" >= 500)'"
    )


_NAMES = ("access", "calls", "app")


def _requests_with_calls(log: str, config: str) -> tuple[Path | None, str]:
    """Return the access log if ``log`` is the configured log calls, whose calls it names all, and a note about it.

    The path is None for any other log, and if the access log cannot be read or names no calls.
    """
    from ..logs.files.reading import log_files
    from ..logs.recorder import is_combined
    from .options import load_config

    if log != "calls" or Path(log).exists():
        return None, ""
    logs = load_config(config).logs
    only = f'only of the calls that have a record of their own (which = "{logs.calls.which}"); the access log'
    if is_combined(logs):
        return None, f"{only} has the combined format, without calls"
    path = _configured_path("access", config)
    if path is None or not log_files(path):
        return None, f"{only} {'is written to stdout' if path is None else 'is missing'}"
    return path, f"latencies and calls are of all calls, from {path.name}; the rest is of the records in this log"


def _path(log: str, config: str, *, may_come: bool = False) -> Path:
    """Return the path of a log that is given by its path or by the name of a stream.

    ``may_come``: a log that does not exist yet is no error; a line on stderr says that it is waited for.

    Raises:
        ClickException: the stream is written to stdout, or there is no such log.
        ConfigError: the log is given by a name, and the configuration cannot be used.
    """
    from ..logs.files.reading import log_files

    path = Path(log) if log not in _NAMES or Path(log).exists() else _configured(log, config)
    if log_files(path):
        return path
    if path == Path(log) and not path.parent.is_dir():
        raise click.ClickException(f"{path}: there is no such directory")
    missing = f"{path}: there is no such log"
    if may_come:
        click.echo(f"{missing} yet; waiting for it", err=True)
        return path
    if path == Path(log):
        missing += f"; LOG is a file, or one of {', '.join(_NAMES)}"
    raise click.ClickException(missing)


def _configured_path(name: str, config: str) -> Path | None:
    """Return the path of a stream; None if it is written to stdout."""
    from ..logs.recorder import path_of
    from .options import load_config

    return path_of(load_config(config).logs, name)


def _configured(name: str, config: str) -> Path:
    path = _configured_path(name, config)
    if path is None:
        reason = f'is written to stdout ([logs] {name} of {config} has file = "-"), so there is no file to read'
        raise click.ClickException(f"{name} {reason}; read the output of the service")
    return path


def _end(count: int, *read: LogFiles) -> None:
    """Fail if a file could not be read to its end; stderr has named it. ``count``: the lines that were read."""
    if any(files.unreadable for files in read):
        rest = "the lines of the others are complete" if count else "no line was read"
        raise click.ClickException(f"not all files of this log can be read; {rest}")
