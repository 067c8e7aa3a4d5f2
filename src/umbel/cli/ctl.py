"""``umbel ctl``: look at a running master and command it, over its control socket.

A client of ``supervisor/control/control.py``. Tables for people, the answer as it came with ``--json``.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .options import allow_empty_option, config_option
from .tables import table

_CONNECT_S = 5.0
_ANSWER_S = 30.0
"""For the whole answer, however it drips."""
_RELOAD_S = 600.0
"""The same of a reload, which is answered when it is over: every worker may take its ``start_timeout``."""
_ANSWER_BYTES_MAX = 64 * 2**20
_PIECE_BYTES = 65536

_COLUMNS = ("SLOT", "STATE", "PID", "GEN", "UP", "REQUESTS", "BUSY", "CONNS", "LAG", "MEMORY", "RESTARTS", "LAST EXIT")


@click.group(short_help="Look at a running master and command it.")
def ctl() -> None:
    """Look at a running master and command it, over its control socket.

    Exit status 0 if it obeyed, 1 if it refused or cannot be reached; the text says why.
    """


def _command(function: Callable[..., None]) -> click.Command:
    """A command of the group whose first argument is the line to the master; adds the options of that."""

    @config_option
    @click.option("--control", metavar="PATH", help="The control socket.  [default: [supervisor] control]")
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
    @wraps(function)
    def call(file: str, control: str | None, as_json: bool, **arguments: Any) -> None:
        try:
            function(_Line(control, file, as_json), **arguments)
        except (LookupError, TypeError, AttributeError) as error:
            reason = "the answer lacks what is to be shown; is the master of another version? Say --json to see it"
            raise click.ClickException(reason) from error

    return ctl.command()(call)


@_command
def status(line: _Line) -> None:
    """Show the master, its slots and their workers."""
    answer = line.ask(command="status")
    if not line.as_json:
        click.echo(_status(answer))


@_command
@click.argument("workers", type=click.IntRange(1))
def scale(line: _Line, workers: int) -> None:
    """Have so many WORKERS until the master ends."""
    answer = line.ask(command="scale", count=workers)
    line.say(f"{answer.get('size')} workers from now on")


@_command
@allow_empty_option
def reload(line: _Line, allow_empty: bool) -> None:
    """Replace every worker by a fresh one; waits for the end of it."""
    answer = line.ask(command="reload", allow_empty=allow_empty)
    line.say(f"reloaded: every worker is of generation {answer.get('generation')}")


@_command
@click.argument("slot", type=int)
def drain(line: _Line, slot: int) -> None:
    """Replace the worker of SLOT: its successor gets ready, then it drains."""
    line.ask(command="drain", slot=slot)
    line.say(f"the worker of slot {slot} drains as soon as its successor is ready")


@_command
@click.argument("slot", type=int)
def kill(line: _Line, slot: int) -> None:
    """Kill the worker of SLOT (SIGKILL); it is replaced as after a crash."""
    answer = line.ask(command="kill", slot=slot)
    line.say(f"killed process {answer.get('pid')}")


@_command
def reopen(line: _Line) -> None:
    """Have all processes open their logs anew; waits until they have."""
    answer = line.ask(command="reopen")
    line.say(f"{answer.get('workers')} workers have opened their logs anew")


@_command
@click.option("--quick", is_flag=True, help="Cut what is in flight.")
def stop(line: _Line, quick: bool) -> None:
    """Stop the master and its workers."""
    line.ask(command="stop", quick=quick)
    line.say("stopping")


@_command
def tree(line: _Line) -> None:
    """Show the live tasks of all processes, each beneath the one whose nursery it is in."""
    answer = line.ask(command="tree")
    for each in answer.get("trees", ()):
        line.say(f"{each['process']} ({each['pid']})")
        for text in each["lines"]:
            line.say(f"  {text}")


class _Line:
    """The way to the master, and how it is told what it said."""

    def __init__(self, control: str | None, file: str, as_json: bool) -> None:
        self.as_json = as_json
        self._control = control
        self._file = file

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one command; gives the answer.

        Raises:
            ClickException: there is no master at the socket, or it refused.
        """
        path = self._path()
        try:
            received = _exchange(
                path, json.dumps(request).encode(), _RELOAD_S if request["command"] == "reload" else _ANSWER_S
            )
        except TimeoutError as error:
            reason = str(error)
            raise click.ClickException(f"the master at {path} does not answer: {reason}; see its log") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise click.ClickException(
                f"no master answers at {path}: {reason}; is it running with --control?"
            ) from error
        try:
            answer = _answer(received)
        except ValueError as error:
            reason = f"what answers at {path} is no master of this version ({error}); name another path with --control"
            raise click.ClickException(reason) from error
        if self.as_json:
            click.echo(json.dumps(answer))
        if not answer.get("ok"):
            if self.as_json:
                raise SystemExit(1)
            raise click.ClickException(str(answer.get("error")))
        return answer

    def say(self, text: str) -> None:
        """Print for a person."""
        if not self.as_json:
            click.echo(text)

    def _path(self) -> str:
        if self._control is not None:
            return self._control
        if Path(self._file).is_file():
            from .options import load_config

            if (control := load_config(self._file).supervisor.control) is not None:
                return control
        raise click.UsageError("where is the master? Say --control PATH, or set control in [supervisor] of umbel.toml")


def _exchange(path: str, request: bytes, within: float) -> bytes:
    """Send one line; what comes back until the other side closes.

    Raises:
        TimeoutError: it takes longer than so many seconds.
        OSError: nobody is there, or it closes without a word.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_S)
        sock.connect(path)
        sock.sendall(request + b"\n")
        received, deadline = bytearray(), time.monotonic() + within
        while len(received) <= _ANSWER_BYTES_MAX:
            # A timeout of 0 would mean something else.
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = sock.recv(_PIECE_BYTES)
            except TimeoutError as error:
                raise TimeoutError(f"nothing whole came within {within:g} s") from error
            if not piece:
                break
            received += piece
            if time.monotonic() >= deadline:
                raise TimeoutError(f"nothing whole came within {within:g} s")
    if not received:
        raise OSError(0, "it closed the connection")
    return bytes(received)


def _answer(received: bytes) -> dict[str, Any]:
    """A master's answer.

    Raises:
        ValueError: it is none.
    """
    if len(received) > _ANSWER_BYTES_MAX:
        raise ValueError(f"over {_ANSWER_BYTES_MAX // 2**20} MiB came")
    try:
        answer: object = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise ValueError("what came is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise ValueError('what came has no "ok"')
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
    return "\n".join([*head, table(_COLUMNS, rows)])


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
    """Such as ``3d 4h``, ``5m 12s``: the two largest units."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])
