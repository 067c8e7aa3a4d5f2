"""The listening sockets of an admin side: a Unix socket with mode 0600, configured addresses, and one for a terminal.

The functions block (a lock of the socket's directory, the resolution of a host name), each for a bounded time except
for a disk that hangs.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from ..server.process.unix_socket import PATH_BYTES_MAX, BoundPath, claimed
from .settings import RUNTIME_VARIABLE, SocketPlace

BACKLOG = 1024
"""Connections that wait to be accepted. A client of a Unix socket whose backlog is full gets an error at once."""
TERMINAL_PORTS = range(9600, 9700)
"""The ports on loopback of which the first free one is used on a terminal."""
_MODE = 0o600
_DIRECTORY_MODE = 0o750
_FULL_POLL_S = 0.01
"""Seconds between two tries to connect to a socket whose backlog is full."""
_SAME_PROCESS_MAX = 9
"""The bound on sockets of one process at one place (a process may serve several applications)."""
_STALE_MAX = 100
"""The bound on old sockets that one start looks at."""


class AdminListener:
    """A listening socket of an admin side, until ``close``."""

    def __init__(self, sock: socket.socket, address: str, path: _OwnPath | None = None) -> None:
        self.socket = sock
        self.address = address
        """``host:port`` as bound, or the path of the Unix socket."""
        self._path = path

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self._path is not None

    def is_gone(self) -> bool:
        """Whether the path of the Unix socket is removed or replaced, so that no client can connect. Blocking."""
        return self._path is not None and not self._path.is_there()

    def close(self) -> None:
        """Close the socket, and remove its path if it is still its own. A second call does nothing. Never raises."""
        if self._path is not None:
            self._path.remove()  # Before the socket is closed; see BoundPath.
        self.socket.close()


class _OwnPath:
    """The path of the Unix socket that this process has bound, in a directory that it holds open."""

    def __init__(self, directory: int, path: Path, reachable: str) -> None:
        self._directory = directory
        self._bound = BoundPath(reachable)
        self._path = path
        self._status = path.lstat()

    def is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), self._status)
        except OSError:
            return False

    def remove(self) -> None:
        self._bound.remove()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def unix_listener(place: SocketPlace) -> AdminListener:
    """Listen on a Unix socket with mode 0600 at ``place``.

    If another process listens on the first name, the process id becomes a part of the name. Sockets on which no process
    listens are removed.

    Raises:
        OSError: the directory does not exist or cannot be written, or a file that is no socket has the name.
    """
    if place.creates:
        place.directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        descriptor = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        reason = f"there is no directory {place.directory}; name one for the socket in {RUNTIME_VARIABLE}"
        raise FileNotFoundError(errno.ENOENT, reason) from error
    try:
        _remove_stale(place)
        for path in _names(place):
            # The name in the open directory: so the path may be longer than a socket's address.
            reachable = reachable_path(path, descriptor)
            try:
                return _listening_at(path, reachable, descriptor)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"every name for the socket in {place.directory} is taken")
    except BaseException:
        os.close(descriptor)
        raise


def _names(place: SocketPlace) -> Iterator[Path]:
    own = f"{place.name}-{os.getpid()}"
    names = (place.name, own, *(f"{own}-{number}" for number in range(2, _SAME_PROCESS_MAX + 1)))
    return (place.directory / f"{name}.sock" for name in names)


def reachable_path(path: Path, directory: int) -> str:
    """The path of a Unix socket as ``bind`` and ``connect`` take it, which allow ``PATH_BYTES_MAX`` bytes.

    ``directory`` is a descriptor of the directory of ``path``, which must stay open.
    """
    return str(path) if len(os.fsencode(path)) <= PATH_BYTES_MAX else f"/proc/self/fd/{directory}/{path.name}"


def _listening_at(path: Path, reachable: str, directory: int) -> AdminListener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # The new file gets the mode of the socket's own inode. So it never has another mode, and the process's umask
        # stays as it is.
        os.fchmod(sock.fileno(), _MODE)
        with claimed([reachable]):
            sock.bind(reachable)
            sock.listen(BACKLOG)
            own = _OwnPath(directory, path, reachable)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno != errno.EADDRINUSE:
            reason = (error.strerror or str(error)).replace(reachable, str(path))
            said = reason if str(path) in reason else f"cannot listen on {path}: {reason}"
            raise OSError(error.errno, said) from error
        raise
    return AdminListener(sock, str(path), own)


def socket_paths(place: SocketPlace) -> list[Path]:
    """The paths of the sockets at ``place``, in the order of their names; some may be stale."""
    with suppress(OSError):
        found = [*place.directory.glob(f"{place.name}.sock"), *place.directory.glob(f"{place.name}-[0-9]*.sock")]
        return sorted(found)
    return []


def _remove_stale(place: SocketPlace) -> None:
    for path in islice(socket_paths(place), _STALE_MAX):
        with suppress(OSError), claimed([str(path)]):
            pass


def tcp_listener(address: str) -> AdminListener:
    """Listen on ``host:port``; port 0 means a free one.

    Raises:
        OSError: the host cannot be resolved, or the address cannot be bound. The message is one sentence.
    """
    host, _, port = address.rpartition(":")
    try:
        [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address}: {error.strerror}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        remedy = "; another process, or another address of this one, has it" if error.errno == errno.EADDRINUSE else ""
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}{remedy}") from error
    bound, number = sock.getsockname()[:2]
    return AdminListener(sock, f"[{bound}]:{number}" if family == socket.AF_INET6 else f"{bound}:{number}")


def terminal_listener() -> AdminListener:
    """Listen on the first free port of ``TERMINAL_PORTS`` on 127.0.0.1.

    Raises:
        OSError: none is free.
    """
    for port in TERMINAL_PORTS:
        with suppress(OSError):
            return tcp_listener(f"127.0.0.1:{port}")
    raise OSError(errno.EADDRINUSE, f"no port of 127.0.0.1 from {TERMINAL_PORTS[0]} to {TERMINAL_PORTS[-1]} is free")


def _connect(sock: socket.socket, path: str, deadline: float) -> None:
    """Connect to a Unix socket, and try again until ``deadline`` while its backlog is full."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_FULL_POLL_S)  # Not in an event loop: the caller is ``umbel ctl``, which does nothing else.
        else:
            return


@contextmanager
def connected(path: str, timeout: float) -> Iterator[socket.socket]:
    """Connect to the Unix socket at ``path``, of any length, within ``timeout`` seconds; close it after the block.

    Raises:
        OSError: no process listens there.
    """
    place = Path(path)
    descriptor = -1
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            if len(os.fsencode(path)) > PATH_BYTES_MAX:
                descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            sock.settimeout(timeout)
            _connect(sock, reachable_path(place, descriptor), time.monotonic() + timeout)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        yield sock
