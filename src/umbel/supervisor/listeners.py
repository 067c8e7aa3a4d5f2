"""The listening sockets, bound once by the master and kept as long as it serves, whatever becomes of its workers.

Opened by ``master.py``. The master never accepts; a connection that comes while no worker is up waits in the backlog.
"""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hypercorn.config import Config

from ..server.listen import listening

_FIRST_ACTIVATED = 3
"""The first descriptor that systemd passes; see sd_listen_fds(3)."""


class Listeners:
    """Bound sockets, as descriptors that workers inherit."""

    def __init__(self, secure: tuple[socket.socket, ...], insecure: tuple[socket.socket, ...], tls: bool) -> None:
        self.tls = tls
        """Whether the settings that they were bound with had a certificate."""
        self._secure = secure
        self._insecure = insecure
        self._paths = [path for sock in (*secure, *insecure) if (path := _path(sock)) is not None]
        self._files = [path.stat() for path in self._paths]
        self.addresses = [_address(sock, "https") for sock in secure] + [_address(sock, "http") for sock in insecure]

    @property
    def secure(self) -> tuple[int, ...]:
        """Descriptors on which TLS is spoken."""
        return tuple(sock.fileno() for sock in self._secure)

    @property
    def insecure(self) -> tuple[int, ...]:
        """Descriptors on which it is not."""
        return tuple(sock.fileno() for sock in self._insecure)

    def close(self) -> None:
        """Let go of the sockets: once no worker has them either, connections are refused."""
        for sock in (*self._secure, *self._insecure):
            sock.close()
        for path, ours in zip(self._paths, self._files, strict=True):
            with suppress(OSError):
                if os.path.samestat(path.stat(), ours):  # and not that of a master that has come after us
                    path.unlink()
        self._paths, self._files = [], []


@contextmanager
def bound(config: Config, activated: int = 0) -> Iterator[Listeners]:
    """The sockets of ``config``, or as many as systemd has ``activated``; closed at the end.

    Raises:
        OSError: an address cannot be bound, or a descriptor is no socket.
    """
    if activated:
        config = copy.copy(config)
        config.bind = [f"fd://{number}" for number in range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + activated)]
        config.insecure_bind = []
    with ExitStack() as stack:
        opened = stack.enter_context(listening(config))
        for listener in opened:
            # Only what is passed on is inherited, and only by workers.
            listener.socket.set_inheritable(False)
        listeners = Listeners(
            tuple(each.socket for each in opened if each.context is not None),
            tuple(each.socket for each in opened if each.context is None),
            config.ssl_enabled,
        )
        if not activated:
            stack.callback(listeners.close)
        yield listeners


def activated_sockets(environment: Mapping[str, str] = os.environ) -> int:
    """How many listening sockets systemd has passed to this process, from descriptor 3 on."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return 0
    return int(count)


def _path(sock: socket.socket) -> Path | None:
    """Where a Unix socket stands, if it stands in the file system."""
    name = sock.getsockname()
    return Path(name) if isinstance(name, str) and name else None


def _address(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if isinstance(name, str | bytes):
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"
