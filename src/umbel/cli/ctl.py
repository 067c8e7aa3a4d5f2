"""``umbel ctl``: the client of the admin side, over its Unix socket.

It prints tables and sentences for people, or with ``--json`` the answer as it was received.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import allow_empty_option, config_option

if TYPE_CHECKING:
    import socket

ResultT = TypeVar("ResultT")

_CONNECT_S = 5.0
_ANSWER_S = 30.0
"""The time limit in seconds for the whole answer."""
_RELOAD_S = 600.0
"""The time limit for the answer to a reload, which comes at its end: each worker may take its ``start_timeout``."""
_ANSWER_BYTES_MAX = 64 * 2**20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
WORKER_COLUMNS = (
    *("SLOT", "STATE", "PID", "GEN", "UP", "REQUESTS", "BUSY", "STREAMS", "CONNS"),
    *("LAG", "MEMORY", "RESTARTS", "LAST EXIT"),
)
_AUTH_COLUMNS = ("AUTH", "KIND", "SOURCE", "STATE", "KEYS", "AGE", "TOKENS", "LAST ERROR")
_LIMIT_COLUMNS = ("LIMIT", "SHARED", "KEYS", "ADMITTED", "REFUSED", "EVICTED", "WAITING", "DELAYED")


@click.group(short_help="Show the state of a running instance, and control it.")
def ctl() -> None:
    """Show the state of a running instance, and control it, over the Unix socket of its admin side.

    Most commands need a master (umbel serve -w N); status, tree, url, reopen, log-level and stop do not. The socket is
    found in $RUNTIME_DIRECTORY, else in the directory of the logs.

    Exit status: 0 if the command was carried out; 1 if it was refused or there is no answer, with the reason.
    """


def with_admin(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function of an ``AdminClient`` into one of a command, with the options that the client needs."""

    @config_option
    @click.option("--socket", "path", metavar="PATH", help="The Unix socket of the admin side.  [default: found]")
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
    @wraps(function)
    def call(file: str, path: str | None, as_json: bool, **arguments: Any) -> None:
        try:
            function(AdminClient(path, file, as_json), **arguments)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = "the answer lacks fields, so it may be of another version; --json prints the answer as it is"
            raise click.ClickException(reason) from error

    return call


def _command(function: Callable[..., None]) -> click.Command:
    return ctl.command()(with_admin(function))


@_command
def status(admin: AdminClient) -> None:
    """Show the master, its slots and their workers; without a master the process.

    A worker is silent if its heartbeat is late: its event loop is blocked, or the process is stopped. BUSY is the
    number of requests in flight, CONNS that of open connections. LAG is the lateness of the last heartbeat, which shows
    for how long the event loop was blocked; of a silent worker, the time since its last message. GEN says with which
    reading of the configuration the worker was started, counted from 1.

    Below are the sections of [auth] with their keys: the worst state (ok, failing or none) and the fewest keys of all
    workers, the age of the oldest, and how many verified tokens are remembered.
    """
    answer = admin.get("/status")
    if not admin.as_json:
        click.echo(_status(answer))


@_command
@click.argument("workers", type=click.IntRange(1))
def scale(admin: AdminClient, workers: int) -> None:
    """Set the number of workers.

    The number holds until it is set again or the master ends.
    """
    answer = admin.command("scale", count=workers)
    admin.say(f"{answer.get('size')} workers from now on")


@_command
@allow_empty_option
def reload(admin: AdminClient, allow_empty: bool) -> None:
    """Replace all workers, and wait until it is done.

    Configuration, certificates and code are read again. If a new worker does not become ready, the reload is aborted
    and the old workers serve on.
    """
    answer = admin.command("reload", allow_empty=allow_empty)
    admin.say(f"reloaded: all workers are of generation {answer.get('generation')}")


@_command
@click.argument("slot", type=int)
def drain(admin: AdminClient, slot: int) -> None:
    """Replace the worker of SLOT.

    The old worker drains after its successor is ready. Does not wait for that.
    """
    admin.command("drain", slot=slot)
    admin.say(f"the worker of slot {slot} drains as soon as its successor is ready")


@_command
@click.argument("slot", type=int)
def kill(admin: AdminClient, slot: int) -> None:
    """Kill the worker of SLOT (SIGKILL). The master restarts it as after a crash."""
    answer = admin.command("kill", slot=slot)
    admin.say(f"killed process {answer.get('pid')}")


@_command
def reopen(admin: AdminClient) -> None:
    """Reopen the log files of all processes.

    Waits until all have done so; fails if a process needs more than 5 s.
    """
    answer = admin.command("reopen")
    workers = answer.get("workers")
    admin.say("the log files are reopened" if workers is None else f"{workers} workers have reopened their log files")


@_command
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error", "critical"]))
def log_level(admin: AdminClient, level: str) -> None:
    """Set the lowest level that the log app records, in all workers.

    It holds until it is set again or the configuration is reloaded.
    """
    admin.command("log-level", level=level)
    admin.say(f"the level of the log app is {level}")


@_command
@click.option("--quick", is_flag=True, help="Cancel requests in flight, so that the stop takes at most 2 s.")
def stop(admin: AdminClient, quick: bool) -> None:
    """Stop the instance. Does not wait for the end.

    Requests in flight may take up to graceful_timeout.
    """
    admin.command("stop", quick=quick)
    admin.say("stopping")


@_command
def tree(admin: AdminClient) -> None:
    """Show the live tasks of all processes.

    They are shown as trees: each task below the task whose nursery it runs in.
    """
    import msgspec

    from ..observe.tree.nodes import ProcessTree
    from ..observe.tree.text import tree_lines

    answer = admin.get("/tree")
    for each in answer["trees"]:
        for line in tree_lines(msgspec.convert(each, ProcessTree)):
            admin.say(line)


@_command
def url(admin: AdminClient) -> None:
    """Print a new URL of the page for a browser, which is valid once and for ten minutes.

    Needs an address for the page: bind in [admin], or an instance that was started on a terminal.
    """
    answer = admin.command("url")
    admin.say(str(answer["url"]))


class AdminClient:
    """The client of an admin side, which sends one request over its Unix socket.

    Args:
        path: the path of the socket; None: it is looked for.
        file: the path of the configuration.
        as_json: whether the answer is printed as JSON.
    """

    def __init__(self, path: str | None, file: str, as_json: bool) -> None:
        self.as_json = as_json
        self._path = path
        self._file = file

    def get(self, path: str) -> dict[str, Any]:
        """Get a page and return its content, which is also printed if the output is JSON; raises as ``command``."""
        return self._ask("GET", path, b"", _ANSWER_S)

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and return the answer, which is also printed if the output is JSON.

        Raises:
            ClickException: nothing answers in time, or the command is refused.
            SystemExit: the command is refused, and the output is JSON.
        """
        return self._ask(
            "POST", f"/ctl/{name}", json.dumps(arguments).encode(), _RELOAD_S if name == "reload" else _ANSWER_S
        )

    def say(self, text: str) -> None:
        """Print a line, unless the output is JSON."""
        if not self.as_json:
            click.echo(text)

    def socket_path(self) -> str:
        """The path of the Unix socket.

        Raises:
            ClickException: none was named, and there is none or several.
        """
        return self._path or _find_socket(self._file)

    def _ask(self, method: str, target: str, body: bytes, within: float) -> dict[str, Any]:
        path = self.socket_path()
        try:
            status, received = _send(path, method, target, body, within)
        except TimeoutError as error:
            raise click.ClickException(
                f"no complete answer from {path} ({error}); a command may still be carried out: see umbel ctl status "
                "and the log of the instance"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise click.ClickException(
                f"nothing answers at {path}: {reason}; check the path, and that the instance runs"
            ) from error
        except http.client.HTTPException as error:
            reason = f"{path} is not the socket of an admin side ({type(error).__name__}); check --socket"
            raise click.ClickException(reason) from error
        try:
            answer = {"ok": status == HTTPStatus.OK, **_decoded(received)}
        except ValueError as error:
            reason = f"the answer at {path} is not that of an admin side of this version ({error}); check --socket"
            raise click.ClickException(reason) from error
        if not answer["ok"]:
            answer = {"ok": False, "error": answer.get("detail", f"status {status}")}
        if self.as_json:
            click.echo(json.dumps(answer))
        if not answer["ok"]:
            if self.as_json:
                raise SystemExit(1)
            raise click.ClickException(str(answer["error"]))
        return answer


def _find_socket(file: str) -> str:
    """Return the path of the one socket on which an instance listens.

    Raises:
        ClickException: there is none, or there are several.
    """
    from ..admin.listeners import connected, socket_paths
    from ..admin.settings import socket_place

    place = socket_place(_logs_dir(file))
    living = []
    for path in map(str, socket_paths(place)):
        with suppress(OSError), connected(path, _CONNECT_S):
            living.append(path)
    if len(living) == 1:
        return living[0]
    if not living:
        reason = f"no instance runs with a socket in {place.directory}"
        hint = "name another one with --socket (of a systemd unit: /run/UNIT/umbel-admin.sock)"
        why = "an instance that has none says why on stderr and in its log app"
        raise click.ClickException(f"{reason}; {hint}; {why}")
    raise click.ClickException(f"several instances run; name one with --socket: {', '.join(living)}")


def _logs_dir(file: str) -> str:
    """Return the directory of the logs in the configuration, also if other parts of it are wrong.

    A running instance does not depend on its file any more, so ``status`` must not either. Only ``[logs]`` is read,
    which must be in the main file: to check a whole configuration takes a second.
    """
    from ..config.schema.values.defaults import LOGS_DIR

    found: object = None
    with suppress(OSError, ValueError, RecursionError):
        logs = tomllib.loads(Path(file).read_text("utf-8-sig")).get("logs", {})
        found = logs.get("dir") if isinstance(logs, dict) else None
    if isinstance(found, str) and "${" in found:
        from ..config.loading.variables import Variables

        found, problems = Variables(os.environ).replace(found, Path(file).parent)
        if problems:
            reason = f"{file}: logs.dir: {problems[0][1]}; or name the socket with --socket"
            raise click.ClickException(reason)
    return str(Path(file).parent / (found if isinstance(found, str) else LOGS_DIR))


def _send(path: str, method: str, target: str, body: bytes, within: float) -> tuple[int, bytes]:
    """Send one request, and return the status and the content of the response.

    Raises:
        TimeoutError: the response takes longer than ``within`` seconds.
        OSError: no process listens, or it closes the connection without a response.
        HTTPException: the response is not HTTP, or not complete.
    """
    from ..admin.listeners import connected

    with connected(path, _CONNECT_S) as sock:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = _TimedSocket(sock, within)  # It has what http.client needs of a socket.
        headers = {"Connection": "close", **({"Content-Type": "application/json"} if body else {})}
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        content = response.read(_ANSWER_BYTES_MAX + 1)
        if response.length and len(content) <= _ANSWER_BYTES_MAX:
            raise http.client.IncompleteRead(content, response.length)
        return response.status, content


class _TimedSocket:
    """A connected socket with a time limit for all of its operations together."""

    def __init__(self, sock: socket.socket, within: float) -> None:
        self._socket = sock
        self._within = within
        self._deadline = time.monotonic() + within

    def inshort_time(self, operation: Callable[[socket.socket], ResultT]) -> ResultT:
        """Call ``operation`` with the socket, in the time that is left; return its result.

        Raises:
            TimeoutError: the time is over; the message says how long it was.
        """
        late = TimeoutError(f"waited {self._within:g} s")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise late
        self._socket.settimeout(left)
        try:
            return operation(self._socket)
        except TimeoutError as error:
            raise late from error

    def sendall(self, data: bytes) -> None:
        """Send all of the data; raises as ``in_time``."""
        self.inshort_time(lambda sock: sock.sendall(data))

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file that reads from the socket."""
        return io.BufferedReader(_Received(self))

    def close(self) -> None:
        """Do nothing: the socket's owner closes it."""


class _Received(io.RawIOBase):
    """The bytes that a socket receives."""

    def __init__(self, timed: _TimedSocket) -> None:
        self._timed = timed

    def readable(self) -> bool:
        """Return True: the bytes can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive bytes into ``buffer`` and return their number, 0 at the end; raises as ``_TimedSocket.in_time``."""
        return self._timed.inshort_time(lambda sock: sock.recv_into(buffer))


def _decoded(received: bytes) -> dict[str, Any]:
    """Decode the content of an answer.

    Raises:
        ValueError: the bytes are not the answer of an admin side.
    """
    if len(received) > _ANSWER_BYTES_MAX:
        raise ValueError(f"the answer exceeds {_ANSWER_BYTES_MAX // 2**20} MiB")
    try:
        answer: object = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise ValueError("the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ValueError("the answer is no JSON object")
    return answer


def _status(answer: dict[str, Any]) -> str:
    if "process" in answer:
        return _process(answer)
    master = answer["master"]
    head = [
        f"{master['state']}: {master['summary']}",
        f"master {master['pid']}, up {short_time(master['uptime_s'])}, generation {master['generation']}, "
        f"on {' and '.join(master['addresses'])}",
        "",
    ]
    rows = worker_rows(answer)
    return "\n".join([*head, table(WORKER_COLUMNS, rows), *_auth(answer), *_limits(answer)])


def _process(answer: dict[str, Any]) -> str:
    process, server = answer["process"], answer.get("server", {})
    lines = [f"{process['state']}: {process['summary']}"]
    lines.append(f"process {process['pid']}, up {short_time(process['uptime_s'])}, without a master")
    if server:
        busy, streams = f"{server['requests_in_flight']} in flight", f"{server.get('streams', 0)} streams"
        lines.append(f"{server['requests_total']} requests, {busy}, {streams}, {server['connections']} connections")
    return "\n".join([*lines, *_auth(answer), *_limits(answer)])


def _auth(answer: dict[str, Any]) -> list[str]:
    """The lines about the sections of ``[auth]``."""
    from ..admin.auth_rows import auth_rows

    rows = [
        [
            *(row.name, row.kind, row.source, row.state, str(row.keys) if row.source else ""),
            *("" if row.age is None else short_time(row.age), str(row.cached_tokens) if row.kind == "jwt" else ""),
            row.last_error,
        ]
        for row in auth_rows(answer)
    ]
    return ["", table(_AUTH_COLUMNS, rows)] if rows else []


def _limits(answer: dict[str, Any]) -> list[str]:
    """The lines about the sections of ``[limits]``."""
    from ..admin.limit_rows import limit_rows

    rows = [list(map(str, row)) for row in limit_rows(answer)]
    return ["", table(_LIMIT_COLUMNS, rows)] if rows else []


def worker_rows(answer: dict[str, Any]) -> list[list[str]]:
    """The rows of ``WORKER_COLUMNS`` of the status of a master."""
    return [row for slot in answer["slots"] for row in _rows(slot)]


def _rows(slot: dict[str, Any]) -> list[list[str]]:
    own = [str(slot["restarts"]), slot["last_exit"] or ""]
    if not slot["workers"]:
        return [[str(slot["slot"]), slot["state"], *[""] * 9, *own]]
    return [[str(slot["slot"]), *_worker(worker), *own] for worker in slot["workers"]]


def _worker(worker: dict[str, Any]) -> list[str]:
    words = [worker["state"], str(worker["pid"]), str(worker["generation"]), short_time(worker["uptime"])]
    beat = worker["beat"]
    if beat is None:
        return [*words, *[""] * 6]
    numbers = [str(beat.get(name, 0)) for name in ("requests", "inflight", "streams", "connections")]
    lag = 1000 * worker["beat_age"] if worker["state"] == "silent" else beat.get("lag_ms", 0)
    return [*words, *numbers, f"{lag:.0f} ms", f"{beat.get('rss', 0) / 2**20:.0f} MiB"]


def short_time(seconds: float) -> str:
    """Format a duration in its two largest units, such as ``3d 4h`` or ``5m 12s``."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows below column names: columns as wide as their widest cell, numbers aligned to the right."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(_row(row, widths) for row in (columns, *rows))


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in cells).rstrip()


def plain(text: str) -> str:
    """Return the text without control characters, which could move the cursor of a terminal."""
    return _CONTROL.sub("�", text)


def cut(text: str, width: int) -> str:
    """Return the text with at most ``width`` characters; an ellipsis replaces what is left out."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
