"""The control socket of ``umbel ctl``: each connection carries one JSON request and one JSON answer.

It exists if ``[supervisor] control`` or ``--control`` names a path. Any process that can connect can command the
master, so the mode of the socket is 0600.
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
"""The time limit in seconds for receiving the request."""
ANSWER_S = 5.0
"""The time limit in seconds for sending the answer."""
CONNECTIONS_MAX = 64
_PRIVATE_UMASK = 0o177


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request: the command and its arguments."""

    command: str
    count: int | None = None
    """Of ``scale``: the number of workers."""
    slot: int | None = None
    """Of ``drain`` and ``kill``: the number of the slot."""
    quick: bool = False
    """Of ``stop``: whether to stop within ``QUICK_S``."""
    allow_empty: bool = False
    """Of ``reload``: whether the configuration may have lost its routes."""


class CommandError(Exception):
    """A command cannot be carried out. ``str(error)``, the text for the client, says why and what to do."""


Answer = dict[str, Any]


@contextmanager
def control_socket(path: str | None) -> Iterator[socket.socket | None]:
    """Context manager: open the listening socket at ``path``, and close and remove it at the end. None: do nothing.

    A socket file on which no process listens is stale, and is replaced.

    Raises:
        ConfigError: another process listens at the path, or the socket cannot be created.
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
    """Accept connections on a duplicate of ``sock``, and carry out their commands, until cancelled."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
    await trio.serve_listeners(_Connections(master).serve, [listener])


class _Connections:
    """The open connections to the control socket, each in a task of its own.

    At most ``CONNECTIONS_MAX`` are served at a time. A further connection displaces the oldest one that has not sent
    its whole request; if all have, the further one is closed.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._open = 0
        self._silent: dict[trio.CancelScope, None] = {}
        """The scopes of the connections that have not sent their whole request, the oldest first."""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Receive one request, carry it out and send the answer. A client that leaves ends nothing but its answer."""
        if self._open >= CONNECTIONS_MAX:
            oldest = next(iter(self._silent), None)
            if oldest is None:
                await trio.aclose_forcefully(stream)
                return
            del self._silent[oldest]
            oldest.cancel(reason="a newer connection displaces one that has sent no request")
        self._open += 1
        try:
            async with stream:
                if (line := await self._request(stream)) is not None:
                    answer = msgspec.json.encode(await execute_command(self._master, line), enc_hook=str) + b"\n"
                    with trio.move_on_after(ANSWER_S):
                        await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The client has left.
        finally:
            self._open -= 1

    async def _request(self, stream: trio.SocketStream) -> bytes | None:
        """Receive the line of the request; None if it did not come in time or the connection was displaced."""
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
    """Carry out the command of a request, which is one JSON object; never raises an ``Exception`` for a bad request.

    The answer has ``ok`` and the results of the command. If ``ok`` is false, it has only ``error`` besides: a sentence
    that says why and what to do. A cancel ends the wait for the result; a reload that has begun goes on.
    """
    try:
        request = msgspec.json.decode(line, type=Request)
        command = _COMMANDS.get(request.command)
        if command is None:
            raise CommandError(f'"{request.command}" is not a command; the commands are {", ".join(_COMMANDS)}')
        return {"ok": True, **await command(master, request)}
    except msgspec.DecodeError as error:
        return {"ok": False, "error": f"the request is invalid: {error}"}
    except CommandError as error:
        return {"ok": False, "error": str(error)}


async def _status(master: Master, request: Request) -> Answer:
    return await status(master)


async def _tree(master: Master, request: Request) -> Answer:
    return {"trees": await all_task_trees(master)}


async def _scale(master: Master, request: Request) -> Answer:
    if request.count is None or not 1 <= request.count <= WORKERS_MAX:
        raise CommandError(f"scale needs a number of workers from 1 to {WORKERS_MAX}")
    master.scale(request.count)
    return {"size": master.size}


async def _reload(master: Master, request: Request) -> Answer:
    if master.stopping:
        raise CommandError("the master is stopping and cannot reload; start it again")
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
        raise CommandError(f"slot {slot.number} has no worker at the moment; try again after its restart")
    slot.worker.kill()
    return {"slot": slot.number, "pid": slot.worker.pid}


async def _reopen(master: Master, request: Request) -> Answer:
    answered, asked = await master.reopen_logs_and_wait()
    if answered < asked:
        raise CommandError(f"{answered} of {asked} workers have reopened their log files in time; see umbel ctl status")
    return {"workers": asked}


async def _stop(master: Master, request: Request) -> Answer:
    master.stop("umbel ctl stop", quick=request.quick)
    return {}


def _slot(master: Master, request: Request) -> Slot:
    slot = None if request.slot is None else master.slots.get(request.slot)
    if slot is None:
        slots = ", ".join(map(str, sorted(master.slots)))
        raise CommandError(f"{request.command} needs the number of a slot; the slots are {slots}")
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
