"""The listening sockets, which the master binds once and keeps open while workers are replaced.

The master never accepts a connection. While no worker runs, connections wait in the backlog.
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
"""The form of ``LISTEN_FDS``, the number of sockets that systemd passes."""
_FIRST_ACTIVATED = 3
"""The first descriptor that systemd passes; see sd_listen_fds(3)."""


class Listeners:
    """The bound sockets, whose descriptors workers inherit."""

    def __init__(self, listeners: Sequence[Listener], *, tls: bool) -> None:
        self.tls = tls
        """Whether the settings named a certificate when the sockets were bound."""
        self._secure = [each.socket for each in listeners if each.context is not None]
        self._insecure = [each.socket for each in listeners if each.context is None]
        self._paths = [each.path for each in listeners if each.path is not None]
        self.addresses = [
            *(_address(sock, "https") for sock in self._secure),
            *(_address(sock, "http") for sock in self._insecure),
        ]

    @property
    def secure(self) -> tuple[int, ...]:
        """The descriptors of the sockets for TLS."""
        return tuple(sock.fileno() for sock in self._secure)

    @property
    def insecure(self) -> tuple[int, ...]:
        """The descriptors of the sockets without TLS."""
        return tuple(sock.fileno() for sock in self._insecure)

    def close(self) -> None:
        """Close the sockets, and remove Unix sockets. Connections are refused once no worker has the sockets open."""
        for path in self._paths:
            path.remove()
        for sock in (*self._secure, *self._insecure):
            sock.close()


@contextmanager
def bound(config: Config, activated: int = 0) -> Iterator[Listeners]:
    """Context manager: bind the addresses of ``config``, and close the sockets at the end; gives the listeners.

    If ``activated`` is above 0, no address is bound. Instead that many sockets of systemd are used, from descriptor 3
    on.

    Raises:
        OSError: an address cannot be bound, or a descriptor is not a socket.
    """
    if activated:
        config = copy.copy(config)
        config.bind = [f"fd://{number}" for number in range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + activated)]
        config.insecure_bind = []
    with listening(config) as opened:
        for listener in opened:
            # Only workers inherit it: spawn() passes it explicitly.
            listener.socket.set_inheritable(False)
        yield Listeners(opened, tls=config.ssl_enabled)


def activated_sockets(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of listening sockets that systemd has passed to this process, from descriptor 3 on."""
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
