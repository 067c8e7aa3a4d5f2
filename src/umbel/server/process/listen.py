"""The listening sockets, and the tasks that accept connections from them."""

from __future__ import annotations

import errno
import math
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio
from hypercorn.config import Config, SocketTypeError
from hypercorn.utils import repr_socket_addr

from ..serve_socket import serve_socket
from ..state import ServerState
from .unix_socket import BoundPath, claimed

PAUSE = 0.1
"""Seconds for which accepting pauses when the process has no descriptor or memory left."""
REPORT_INTERVAL = 10.0
"""Least seconds between two records of such a pause."""
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Errors of accept(2) that concern one connection, which broke before it was accepted.
_BROKEN_BEFORE_ACCEPT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket."""

    socket: socket.socket
    context: ssl.SSLContext | None
    """The TLS settings of its connections; None: no TLS."""
    path: BoundPath | None = None
    """The path of a Unix socket that was bound here; None if the socket was inherited."""

    @property
    def address(self) -> str:
        """The address as text, such as ``http://127.0.0.1:8000``."""
        where = repr_socket_addr(self.socket.family, self.socket.getsockname())
        return f"{'http' if self.context is None else 'https'}://{where}"


class BindError(OSError):
    """An address cannot be bound. ``strerror`` is a sentence with the address and the reason."""


@contextmanager
def listening(config: Config) -> Iterator[list[Listener]]:
    """Bind the sockets of ``config`` and listen. At the end, close them and remove the paths of Unix sockets.

    Raises:
        BindError: an address cannot be bound, for instance because another process listens there.
        OSError: a certificate or key cannot be loaded.
    """
    binds = [*config.bind, *(config.insecure_bind if config.ssl_enabled else ())]
    context = config.create_ssl_context()
    try:
        with claimed(bind.removeprefix("unix:") for bind in binds if bind.startswith("unix:")):
            listeners = _bound(config, context, binds)
    except OSError as error:
        raise BindError(error.errno, f"cannot listen on {' and '.join(config.bind)}: {error.strerror}") from error
    try:
        yield listeners
    finally:
        for listener in listeners:
            if listener.path is not None:
                listener.path.remove()
            listener.socket.close()


def _bound(config: Config, context: ssl.SSLContext | None, binds: Sequence[str]) -> list[Listener]:
    """The listening sockets of ``config``, in the order of their addresses ``binds``."""
    for bind in binds:
        if bind.startswith("fd://") and binds.count(bind) > 1:
            # Two socket objects would own one descriptor, and the first close would close both.
            raise OSError(errno.EADDRINUSE, f"{bind} is given twice; remove one of them")
    try:
        made = config.create_sockets()
    except OSError as error:
        _close_leftovers(error)
        raise
    except SocketTypeError as error:
        _close_leftovers(error)
        raise OSError(errno.EPROTOTYPE, "a file descriptor is not a stream socket") from error
    for unused in made.quic_sockets:
        unused.close()
    sockets = (*made.secure_sockets, *made.insecure_sockets)
    try:
        for sock in sockets:
            sock.listen(config.backlog)
        paths = [BoundPath(bind.removeprefix("unix:")) if bind.startswith("unix:") else None for bind in binds]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    secure = len(made.secure_sockets)
    return [
        Listener(sock, context if place < secure else None, path)
        for place, (sock, path) in enumerate(zip(sockets, paths, strict=True))
    ]


def _close_leftovers(error: Exception) -> None:
    """Close the sockets that Hypercorn opened before it raised: it leaves them in the frames of its traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values():
            for sock in value if isinstance(value, list) else (value,):
                # A socket whose constructor failed has no descriptor, nor the attributes that close() reads.
                if isinstance(sock, socket.socket) and sock.fileno() != -1:
                    sock.close()


async def accept_from(listener: Listener, server: ServerState, nursery: trio.Nursery) -> None:
    """Accept connections until cancelled, and serve each in a task of ``nursery``. Close the socket at the end.

    Raises:
        OSError: accepting failed, and the reason is neither one broken connection nor a lack of descriptors or memory.
    """
    try:
        async for sock in accepted(listener.socket, server):
            nursery.start_soon(serve_socket, server, sock, listener.context)
    finally:
        trio.lowlevel.notify_closing(listener.socket)
        listener.socket.close()


async def accepted(listener: socket.socket, server: ServerState) -> AsyncIterator[socket.socket]:
    """Yield accepted sockets, at most ``accept_batch`` without a checkpoint. Pause while resources are short."""
    reported_at = -math.inf
    while True:
        await trio.lowlevel.wait_readable(listener)
        for _ in range(server.accept_batch):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _BROKEN_BEFORE_ACCEPT:
                    continue
                if error.errno not in _NO_RESOURCES:
                    raise
                if trio.current_time() - reported_at >= REPORT_INTERVAL:
                    reported_at = trio.current_time()
                    count = server.connections.value
                    server.note(
                        "accept.paused",
                        f"cannot accept while {count} connections are open: {error.strerror}; "
                        "allow the process more, or lower max_connections",
                    )
                await trio.sleep(PAUSE)
                break
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            yield sock
