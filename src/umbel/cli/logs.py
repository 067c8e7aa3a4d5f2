"""``umbel logs tail|grep|stat``: the records as people want to see them.

Reads files and nothing else; follows a log across rotation, and reads what is compressed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .values import COUNT_OR_NONE

if TYPE_CHECKING:
    from .logreading import Search

_WHERE = "Only records of which this holds, such as 'http.response.status_code>=500'; may stand several times."


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all three commands take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
        click.option("--where", "-w", "conditions", multiple=True, metavar="CONDITION", help=_WHERE),
        click.option(
            "-c",
            "--config",
            "config",
            metavar="FILE",
            default="umbel.toml",
            envvar="UMBEL_CONFIG",
            show_default=True,
            show_envvar=True,
            help="The configuration that says where access, calls and app are.",
        ),
    ):
        command = option(command)
    return command


def _coloured(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--color/--no-color", default=None, help="Colours.  [default: on a terminal]")(command)


@click.group(short_help="Show, search and sum up the records.")
def logs() -> None:
    """Show, search and sum up the records.

    LOG is a file, or one of access, calls and app for the configured ones.
    """


@logs.command(short_help="Show the last records, and those that come.")
@click.argument("log", default="access")
@click.option("--lines", "-n", default=10, show_default=True, type=COUNT_OR_NONE, help="How many of the last.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, across rotation, until Ctrl-C.")
@_shared
@_coloured
def tail(
    log: str, lines: int, follow: bool, conditions: tuple[str, ...], config: str, as_json: bool, color: bool | None
) -> None:
    """Show the last records of LOG (default: access), and with --follow those that come."""
    from .logreading import Follower, last
    from .logshowing import shown

    path = _path(log, config, may_come=follow)
    search = _search(conditions)
    coloured = _colours(color)
    follower = Follower(path)
    for line in last(path, lines, search, upto=follower.position if follow else None):
        click.echo(shown(line, as_json=as_json, coloured=coloured), color=coloured)
    if not follow:
        _end(search)
        return
    for line in follower.lines():
        if search.wanted(line):
            click.echo(shown(line, as_json=as_json, coloured=coloured), color=coloured)


@logs.command(short_help="Search the records of all files of a log.")
@click.argument("pattern")
@click.argument("log", default="access")
@click.option("--ignore-case", "-i", is_flag=True, help="Take upper and lower case for the same.")
@_shared
@_coloured
@click.pass_context
def grep(
    ctx: click.Context,
    pattern: str,
    log: str,
    ignore_case: bool,
    conditions: tuple[str, ...],
    config: str,
    as_json: bool,
    color: bool | None,
) -> None:
    """Show the records of LOG (default: access) whose line the regular expression PATTERN matches, the oldest first.

    Renamed and compressed files are searched too. Exit status 0 if there is one, 1 if not.
    """
    import re

    from .logreading import records
    from .logshowing import shown

    try:
        matches = re.compile(pattern, re.IGNORECASE if ignore_case else 0).search
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {error}") from error
    search, coloured, found = _search(conditions), _colours(color), False
    for line in records(_path(log, config), search):
        if search.wanted(line) and matches(line.text):
            found = True
            click.echo(shown(line, as_json=as_json, coloured=coloured), color=coloured)
    _end(search)
    ctx.exit(0 if found else 1)


@logs.command(short_help="Sum up the records: statuses, latencies, what was dropped.")
@click.argument("log", default="access")
@click.option("--by", metavar="FIELD", help="Also a row for each value of a field, such as http.route.")
@_shared
def stat(log: str, by: str | None, conditions: tuple[str, ...], config: str, as_json: bool) -> None:
    """Sum up all files of LOG (default: access): statuses, a histogram of latencies, what was dropped or is missing."""
    import json

    from .logreading import records
    from .logsums import Sums, drawn

    search = _search(conditions, by)
    sums = Sums(by)
    for line in records(_path(log, config), search):
        sums.count(line)
        if search.wanted(line):
            sums.add(line)
    click.echo(json.dumps(sums.as_dict(), ensure_ascii=False) if as_json else drawn(sums))
    _end(search)


_NAMES = ("access", "calls", "app")


def _path(log: str, config: str, *, may_come: bool = False) -> Path:
    """A log by its path, or a configured one by its name.

    Raises:
        ClickException: it goes to stdout; or there is no such log, unless it ``may_come`` (then a line tells it).
        ConfigError: it is a name, and the configuration cannot be used.
    """
    from ..logs.reading import family

    path = Path(log) if log not in _NAMES or Path(log).exists() else _configured(log, config)
    if family(path):
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


def _configured(name: str, config: str) -> Path:
    from ..logs.recorder import path_of
    from .options import load_config

    path = path_of(load_config(config).logs, name)
    if path is None:
        reason = f'goes to stdout ([logs] {name} of {config} has file = "-"), so there is no file to read'
        raise click.ClickException(f"{name} {reason}; look where the output of the service goes")
    return path


def _search(conditions: tuple[str, ...], counted: str | None = None) -> Search:
    from .logreading import Search

    try:
        return Search(conditions, counted)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--where") from error


def _end(search: Search) -> None:
    """End with a sentence and status 1 if nothing was found and something should have been."""
    if (reason := search.failure()) is not None:
        raise click.ClickException(reason)


def _colours(asked: bool | None) -> bool:
    return sys.stdout.isatty() if asked is None else asked
