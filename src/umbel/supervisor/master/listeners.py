"""The listening sockets, bound once by the master and kept as long as it serves, whatever becomes of its workers.

The master never accepts; a connection that comes while no worker is up waits in the backlog.
"""

from __future__ import annotations

import copy
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hypercorn.config import Config

from ...server.process.listen import Listener, listening

_COUNT = re.compile(r"[0-9]{1,4}")
"""No process has more sockets passed to it."""
_FIRST_ACTIVATED = 3
"""The first descriptor that systemd passes; see sd_listen_fds(3)."""


class Listeners:
    """Bound sockets, as descriptors that workers inherit."""

    def __init__(self, listeners: Sequence[Listener], *, tls: bool) -> None:
        self.tls = tls
        """Whether the settings that they were bound with had a certificate."""
        self._secure = [each.socket for each in listeners if each.context is not None]
        self._insecure = [each.socket for each in listeners if each.context is None]
        self._paths = [each.path for each in listeners if each.path is not None]
        self.addresses = [
            *(_address(sock, "https") for sock in self._secure),
            *(_address(sock, "http") for sock in self._insecure),
        ]

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
        for path in self._paths:
            path.remove()
        for sock in (*self._secure, *self._insecure):
            sock.close()


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
    with listening(config) as opened:
        for listener in opened:
            # Only what is passed on is inherited, and only by workers.
            listener.socket.set_inheritable(False)
        yield Listeners(opened, tls=config.ssl_enabled)


def activated_sockets(environment: Mapping[str, str] = os.environ) -> int:
    """How many listening sockets systemd has passed to this process, from descriptor 3 on."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or _COUNT.fullmatch(count) is None:
        return 0
    return int(count)


def _address(sock: socket.socket, scheme: str) -> str:
    name = sock.getsockname()
    if isinstance(name, str | bytes):
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"
