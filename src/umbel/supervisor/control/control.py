"""The Unix socket of ``umbel ctl``: one JSON object asks, one JSON object answers, and the connection is closed.

Run beside the master where ``[supervisor] control`` names a path. Who may connect may command: the socket is its
owner's alone (0600).
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
"""Seconds for a whole request, however it drips."""
ANSWER_S = 5.0
"""Seconds in which an answer must have been read."""
CONNECTIONS_MAX = 64
_PRIVATE_UMASK = 0o177


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be asked."""

    command: str
    count: int | None = None
    """Of ``scale``."""
    slot: int | None = None
    """Of ``drain`` and ``kill``."""
    quick: bool = False
    """Of ``stop``."""
    allow_empty: bool = False
    """Of ``reload``."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """The command cannot be obeyed; the text says why, and what can."""


Answer = dict[str, Any]


@contextmanager
def control_socket(path: str | None) -> Iterator[socket.socket | None]:
    """The listening socket at ``path``, removed at the end; None without a path.

    A socket that nobody listens at is stale and replaced.

    Raises:
        ConfigError: somebody listens there, or it cannot be made.
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
    """The connections to the control socket. None of them waits for another one.

    At most ``CONNECTIONS_MAX`` are served at a time. One more takes the place of the oldest that has not sent its whole
    request; where all have, it is closed.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._open = 0
        self._silent: dict[trio.CancelScope, None] = {}
        """The scopes of those that have not sent their request, the oldest first."""

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
                    answer = msgspec.json.encode(await obey(self._master, line), enc_hook=str) + b"\n"
                    with trio.move_on_after(ANSWER_S):
                        await stream.send_all(answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # Whoever asked does not care for the answer.
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


async def obey(master: Master, line: bytes) -> Answer:
    """Carry out one command; the answer has ``ok``, and ``error`` if that is false."""
    try:
        request = msgspec.json.decode(line, type=Request)
        command = _COMMANDS.get(request.command)
        if command is None:
            raise Refusal(f'"{request.command}" is no command; there are {", ".join(_COMMANDS)}')
        return {"ok": True, **await command(master, request)}
    except msgspec.DecodeError as error:
        return {"ok": False, "error": f"that is no command: {error}"}
    except Refusal as refusal:
        return {"ok": False, "error": str(refusal)}


async def _status(master: Master, request: Request) -> Answer:
    return await status(master)


async def _tree(master: Master, request: Request) -> Answer:
    return {"trees": await all_task_trees(master)}


async def _scale(master: Master, request: Request) -> Answer:
    if request.count is None or not 1 <= request.count <= WORKERS_MAX:
        raise Refusal(f"scale takes a number of workers from 1 to {WORKERS_MAX}")
    master.scale(request.count)
    return {"size": master.size}


async def _reload(master: Master, request: Request) -> Answer:
    if master.stopping:
        raise Refusal("the master stops")
    if failure := await master.reloader.wait_for(master.reload(allow_empty=request.allow_empty)):
        raise Refusal(failure)
    return {"generation": master.generation}


async def _drain(master: Master, request: Request) -> Answer:
    slot = _slot(master, request)
    master.reloader.recycle(slot, "umbel ctl drain")
    return {"slot": slot.number}


async def _kill(master: Master, request: Request) -> Answer:
    slot = _slot(master, request)
    if slot.worker is None:
        raise Refusal(f"slot {slot.number} has no worker now")
    slot.worker.kill()
    return {"slot": slot.number, "pid": slot.worker.pid}


async def _reopen(master: Master, request: Request) -> Answer:
    answered, asked = await master.reopened()
    if answered < asked:
        raise Refusal(f"{answered} of {asked} workers have opened their logs anew")
    return {"workers": asked}


async def _stop(master: Master, request: Request) -> Answer:
    master.stop("umbel ctl stop", quick=request.quick)
    return {}


def _slot(master: Master, request: Request) -> Slot:
    slot = None if request.slot is None else master.slots.get(request.slot)
    if slot is None:
        raise Refusal(f"{request.command} takes a slot: {', '.join(map(str, sorted(master.slots)))}")
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
