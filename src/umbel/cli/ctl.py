"""``umbel ctl``: the client of a master's control socket.

It prints tables and sentences for people, or with ``--json`` the answer as it was received.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .options import allow_empty_option, config_option

_CONNECT_S = 5.0
_ANSWER_S = 30.0
"""The time limit in seconds for the whole answer."""
_RELOAD_S = 600.0
"""The time limit for the answer to a reload, which comes at its end: each worker may take its ``start_timeout``."""
_ANSWER_BYTES_MAX = 64 * 2**20
_PIECE_BYTES = 65536

_COLUMNS = ("SLOT", "STATE", "PID", "GEN", "UP", "REQUESTS", "BUSY", "CONNS", "LAG", "MEMORY", "RESTARTS", "LAST EXIT")


@click.group(short_help="Show the state of a running master, and control it.")
def ctl() -> None:
    """Show the state of a running master, and control it, over its control socket (umbel serve -w N --control PATH).

    Exit status: 0 if the command was carried out; 1 if the master refused it or does not answer, with the reason.
    """


def _command(function: Callable[..., None]) -> click.Command:
    """Make a function into a command of the group, with the options that its ``_MasterClient`` needs."""

    @config_option
    @click.option(
        "--control", metavar="PATH", help="The control socket of the master.  [default: [supervisor] control]"
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
    @wraps(function)
    def call(file: str, control: str | None, as_json: bool, **arguments: Any) -> None:
        try:
            function(_MasterClient(control, file, as_json), **arguments)
        except (LookupError, TypeError, AttributeError) as error:
            reason = (
                "the answer lacks fields, so the master may be of another version; --json prints the answer as it is"
            )
            raise click.ClickException(reason) from error

    return ctl.command()(call)


@_command
def status(master: _MasterClient) -> None:
    """Show the master, its slots and their workers.

    BUSY is the number of requests in flight, CONNS that of open connections. LAG is the lateness of the last heartbeat,
    which shows for how long the event loop was blocked. GEN says with which reading of the configuration the worker was
    started, counted from 1.
    """
    answer = master.ask(command="status")
    if not master.as_json:
        click.echo(_status(answer))


@_command
@click.argument("workers", type=click.IntRange(1))
def scale(master: _MasterClient, workers: int) -> None:
    """Set the number of workers.

    The number holds until it is set again or the master ends.
    """
    answer = master.ask(command="scale", count=workers)
    master.say(f"{answer.get('size')} workers from now on")


@_command
@allow_empty_option
def reload(master: _MasterClient, allow_empty: bool) -> None:
    """Replace all workers, and wait until it is done.

    Configuration, certificates and code are read again. If a new worker does not become ready, the reload is aborted
    and the old workers serve on.
    """
    answer = master.ask(command="reload", allow_empty=allow_empty)
    master.say(f"reloaded: all workers are of generation {answer.get('generation')}")


@_command
@click.argument("slot", type=int)
def drain(master: _MasterClient, slot: int) -> None:
    """Replace the worker of SLOT.

    The old worker drains after its successor is ready. Does not wait for that.
    """
    master.ask(command="drain", slot=slot)
    master.say(f"the worker of slot {slot} drains as soon as its successor is ready")


@_command
@click.argument("slot", type=int)
def kill(master: _MasterClient, slot: int) -> None:
    """Kill the worker of SLOT (SIGKILL). The master restarts it as after a crash."""
    answer = master.ask(command="kill", slot=slot)
    master.say(f"killed process {answer.get('pid')}")


@_command
def reopen(master: _MasterClient) -> None:
    """Reopen the log files of all processes.

    Waits until all have done so; fails if a worker does not answer within 5 s.
    """
    answer = master.ask(command="reopen")
    master.say(f"{answer.get('workers')} workers have reopened their log files")


@_command
@click.option("--quick", is_flag=True, help="Cancel requests in flight, so that the stop takes at most 2 s.")
def stop(master: _MasterClient, quick: bool) -> None:
    """Stop the master and its workers. Does not wait for the end.

    Requests in flight may take up to graceful_timeout.
    """
    master.ask(command="stop", quick=quick)
    master.say("stopping")


@_command
def tree(master: _MasterClient) -> None:
    """Show the live tasks of all processes.

    They are shown as trees: each task below the task whose nursery it runs in.
    """
    answer = master.ask(command="tree")
    for each in answer.get("trees", ()):
        master.say(f"{each['process']} ({each['pid']})")
        for text in each["lines"]:
            master.say(f"  {text}")


class _MasterClient:
    """The client of a master, which sends one command over the control socket.

    Args:
        control: the path of the control socket; None: the one in the configuration.
        file: the path of the configuration.
        as_json: whether the answer is printed as JSON.
    """

    def __init__(self, control: str | None, file: str, as_json: bool) -> None:
        self.as_json = as_json
        self._control = control
        self._file = file

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one command and return the answer, which is also printed if the output is JSON.

        Raises:
            ClickException: no master answers in time, or it refuses the command.
            SystemExit: the master refuses the command, and the output is JSON.
        """
        path = self._path()
        try:
            received = _send_command(
                path, json.dumps(request).encode(), _RELOAD_S if request["command"] == "reload" else _ANSWER_S
            )
        except TimeoutError as error:
            reason = str(error)
            raise click.ClickException(f"the master at {path} does not answer: {reason}; see its log") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise click.ClickException(
                f"no master answers at {path}: {reason}; check the path, and that the master runs"
            ) from error
        try:
            answer = _answer(received)
        except ValueError as error:
            reason = f"the answer at {path} is not that of a master of this version ({error}); check --control"
            raise click.ClickException(reason) from error
        if self.as_json:
            click.echo(json.dumps(answer))
        if not answer.get("ok"):
            if self.as_json:
                raise SystemExit(1)
            raise click.ClickException(str(answer.get("error")))
        return answer

    def say(self, text: str) -> None:
        """Print a line, unless the output is JSON."""
        if not self.as_json:
            click.echo(text)

    def _path(self) -> str:
        if self._control is not None:
            return self._control
        if Path(self._file).is_file():
            from .options import load_config

            if (control := load_config(self._file).supervisor.control) is not None:
                return control
        raise click.UsageError(
            "no control socket is named; give --control PATH, or set control in [supervisor] of umbel.toml"
        )


def _send_command(path: str, request: bytes, within: float) -> bytes:
    """Send one line, and return all bytes that the master sends until it closes the connection.

    Raises:
        TimeoutError: the answer takes longer than ``within`` seconds.
        OSError: no process listens, or it closes the connection without an answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_S)
        sock.connect(path)
        sock.sendall(request + b"\n")
        received, deadline = bytearray(), time.monotonic() + within
        while len(received) <= _ANSWER_BYTES_MAX:
            # Not 0, which would mean a non-blocking socket.
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = sock.recv(_PIECE_BYTES)
            except TimeoutError as error:
                raise TimeoutError(f"no complete answer within {within:g} s") from error
            if not piece:
                break
            received += piece
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no complete answer within {within:g} s")
    if not received:
        raise OSError(0, "the connection was closed without an answer")
    return bytes(received)


def _answer(received: bytes) -> dict[str, Any]:
    """Decode a master's answer.

    Raises:
        ValueError: the bytes are not the answer of a master.
    """
    if len(received) > _ANSWER_BYTES_MAX:
        raise ValueError(f"the answer exceeds {_ANSWER_BYTES_MAX // 2**20} MiB")
    try:
        answer: object = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise ValueError("the answer is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise ValueError('the answer has no "ok"')
    return answer


def _status(answer: dict[str, Any]) -> str:
    master = answer["master"]
    head = [
        f"{master['state']}: {master['summary']}",
        f"master {master['pid']}, up {_time(master['uptime_s'])}, generation {master['generation']}, "
        f"on {' and '.join(master['addresses'])}",
        "",
    ]
    rows = [row for slot in answer["slots"] for row in _rows(slot)]
    return "\n".join([*head, _table(_COLUMNS, rows)])


def _rows(slot: dict[str, Any]) -> list[list[str]]:
    own = [str(slot["restarts"]), slot["last_exit"] or ""]
    if not slot["workers"]:
        return [[str(slot["slot"]), slot["state"], *[""] * 8, *own]]
    return [[str(slot["slot"]), *_worker(worker), *own] for worker in slot["workers"]]


def _worker(worker: dict[str, Any]) -> list[str]:
    words = [worker["state"], str(worker["pid"]), str(worker["generation"]), _time(worker["uptime"])]
    beat = worker["beat"]
    if beat is None:
        return [*words, *[""] * 5]
    numbers = [str(beat.get(name, 0)) for name in ("requests", "inflight", "connections")]
    return [*words, *numbers, f"{beat.get('lag_ms', 0):.0f} ms", f"{beat.get('rss', 0) / 2**20:.0f} MiB"]


def _time(seconds: float) -> str:
    """Format a duration in its two largest units, such as ``3d 4h`` or ``5m 12s``."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows below column names: columns as wide as their widest cell, numbers aligned to the right."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(_row(row, widths) for row in (columns, *rows))


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in cells).rstrip()
