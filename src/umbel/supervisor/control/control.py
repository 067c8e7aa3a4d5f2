"""The control socket, for ``umbel ctl``: a connection carries one JSON request and one JSON answer.

It exists where ``[supervisor] control`` names a path. Whoever can connect can command the master: the mode of the
socket is 0600.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from ...core.errors import ConfigError, ConfigProblem
from ...server.process.unix_socket import BoundPath, claimed
from ..master.master import Master
from ..master.options import WORKERS_MAX
from ..master.slot import Slot
from .status import status
from .task_tree import all_task_trees

REQUEST_BYTES_MAX = 4096
REQUEST_S = 5.0
"""Seconds in which the whole request must have come."""
ANSWER_S = 5.0
"""Seconds in which an answer must have been read."""
CONNECTIONS_MAX = 64
_PRIVATE_UMASK = 0o177


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request: the command and its arguments."""

    command: str
    count: int | None = None
    """Of ``scale``."""
    slot: int | None = None
    """Of ``drain`` and ``kill``."""
    quick: bool = False
    """Of ``stop``."""
    allow_empty: bool = False
    """Of ``reload``."""


class CommandError(Exception):
    """A command that cannot be carried out. ``str(error)`` says why and what can be done; it is the answer."""


Answer = dict[str, Any]


@contextmanager
def control_socket(path: str | None) -> Iterator[socket.socket | None]:
    """The listening socket at ``path``, removed at the end; None without a path.

    A socket file on which no process listens is stale, and is replaced.

    Raises:
        ConfigError: a process listens there, or the socket cannot be made.
    """
    if path is None:
        yield None
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            with claimed([path]):
                before = os.umask(_PRIVATE_UMASK)
                try:
                    sock.bind(path)
                finally:
                    os.umask(before)
                sock.listen(CONNECTIONS_MAX)
                own = BoundPath(path)
        except OSError as error:
            said = error.strerror or str(error)
            reason = said if path in said else f"cannot listen on {path}: {said}"
            raise ConfigError([ConfigProblem("", None, "supervisor.control", reason)]) from error
        try:
            yield sock
        finally:
            own.remove()


async def serve_control(master: Master, sock: socket.socket) -> None:
    """Answer commands until cancelled."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
    await trio.serve_listeners(_Connections(master).serve, [listener])


class _Connections:
    """The open connections to the control socket. They do not wait for each other.

    At most ``CONNECTIONS_MAX`` are served at a time. One more takes the place of the oldest that has not sent its whole
    request; where all have, it is closed.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._open = 0
        self._silent: dict[trio.CancelScope, None] = {}
        """The scopes of connections that have not sent their request, the oldest first."""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Read one request, carry it out and answer it."""
        if self._open >= CONNECTIONS_MAX:
            oldest = next(iter(self._silent), None)
            if oldest is None:
                await trio.aclose_forcefully(stream)
                return
            del self._silent[oldest]
            oldest.cancel(reason="another connection takes the place of one that is silent")
        self._open += 1
        try:
            async with stream:
                if (line := await self._request(stream)) is not None:
                    answer = msgspec.json.encode(await execute_command(self._master, line), enc_hook=str) + b"\n"
                    with trio.move_on_after(ANSWER_S):
                        await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The client has left, and needs no answer.
        finally:
            self._open -= 1

    async def _request(self, stream: trio.SocketStream) -> bytes | None:
        """The request's line; None if it did not come in time."""
        scope = trio.CancelScope(deadline=trio.current_time() + REQUEST_S)
        self._silent[scope] = None
        try:
            with scope:
                return await _line(stream)
        finally:
            self._silent.pop(scope, None)
        return None


async def _line(stream: trio.SocketStream) -> bytes:
    received = b""
    while b"\n" not in received and len(received) <= REQUEST_BYTES_MAX:
        piece = await stream.receive_some(REQUEST_BYTES_MAX)
        if not piece:
            break
        received += piece
    return received[: REQUEST_BYTES_MAX + 1]


async def execute_command(master: Master, line: bytes) -> Answer:
    """Carry out one command. The answer has ``ok``, and ``error`` where that is false."""
    try:
        request = msgspec.json.decode(line, type=Request)
        command = _COMMANDS.get(request.command)
        if command is None:
            raise CommandError(f'"{request.command}" is no command; there are {", ".join(_COMMANDS)}')
        return {"ok": True, **await command(master, request)}
    except msgspec.DecodeError as error:
        return {"ok": False, "error": f"that is no command: {error}"}
    except CommandError as error:
        return {"ok": False, "error": str(error)}


async def _status(master: Master, request: Request) -> Answer:
    return await status(master)


async def _tree(master: Master, request: Request) -> Answer:
    return {"trees": await all_task_trees(master)}


async def _scale(master: Master, request: Request) -> Answer:
    if request.count is None or not 1 <= request.count <= WORKERS_MAX:
        raise CommandError(f"scale takes a number of workers from 1 to {WORKERS_MAX}")
    master.scale(request.count)
    return {"size": master.size}


async def _reload(master: Master, request: Request) -> Answer:
    if master.stopping:
        raise CommandError("the master stops")
    if failure := await master.reloader.wait_for(master.reload(allow_empty=request.allow_empty)):
        raise CommandError(failure)
    return {"generation": master.generation}


async def _drain(master: Master, request: Request) -> Answer:
    slot = _slot(master, request)
    master.reloader.recycle(slot, "umbel ctl drain")
    return {"slot": slot.number}


async def _kill(master: Master, request: Request) -> Answer:
    slot = _slot(master, request)
    if slot.worker is None:
        raise CommandError(f"slot {slot.number} has no worker now")
    slot.worker.kill()
    return {"slot": slot.number, "pid": slot.worker.pid}


async def _reopen(master: Master, request: Request) -> Answer:
    answered, asked = await master.reopen_logs_and_wait()
    if answered < asked:
        raise CommandError(f"{answered} of {asked} workers have reopened their log files")
    return {"workers": asked}


async def _stop(master: Master, request: Request) -> Answer:
    master.stop("umbel ctl stop", quick=request.quick)
    return {}


def _slot(master: Master, request: Request) -> Slot:
    slot = None if request.slot is None else master.slots.get(request.slot)
    if slot is None:
        raise CommandError(f"{request.command} takes a slot: {', '.join(map(str, sorted(master.slots)))}")
    return slot


_COMMANDS: dict[str, Callable[[Master, Request], Awaitable[Answer]]] = {
    "status": _status,
    "scale": _scale,
    "reload": _reload,
    "drain": _drain,
    "kill": _kill,
    "reopen": _reopen,
    "stop": _stop,
    "tree": _tree,
}
