"""The client of the admin side, over its Unix socket. With ``--json`` it prints each answer as it was received."""

from __future__ import annotations

import http.client
import io
import json
import os
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..options import config_option

if TYPE_CHECKING:
    import socket

ResultT = TypeVar("ResultT")

_CONNECT_S = 5.0
_ANSWER_S = 30.0
"""The time limit in seconds for the whole answer."""
_RELOAD_S = 600.0
"""The time limit for the answer to a reload, which comes at its end: each worker may take its ``start_timeout``."""
_ANSWER_BYTES_MAX = 64 * 2**20


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
    from ...admin.listeners import connected, socket_paths
    from ...admin.settings import socket_place

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
    from ...config.schema.values.defaults import LOGS_DIR

    found: object = None
    with suppress(OSError, ValueError, RecursionError):
        logs = tomllib.loads(Path(file).read_text("utf-8-sig")).get("logs", {})
        found = logs.get("dir") if isinstance(logs, dict) else None
    if isinstance(found, str) and "${" in found:
        from ...config.loading.variables import Variables

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
    from ...admin.listeners import connected

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

    def in_time(self, operation: Callable[[socket.socket], ResultT]) -> ResultT:
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
        self.in_time(lambda sock: sock.sendall(data))

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
        return self._timed.in_time(lambda sock: sock.recv_into(buffer))


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
