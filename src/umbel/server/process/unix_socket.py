"""Unix sockets in the file system: bound only where nobody listens, removed only by the process that bound them.

A path outlives its socket, so a stale path must be removed before the next bind. Only an attempt to connect tells
whether it is stale. Between that attempt and the moment at which the new socket listens no other instance may do the
same: every instance locks the directory meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...core.regular_file import kind_of

LOCK_S_MAX = 5.0
"""How long another instance may hold the lock of a directory; it needs milliseconds."""
_LOCK_POLL_S = 0.01
PATH_BYTES_MAX = 107
"""Of Linux: ``sun_path`` has 108 bytes, the last of them 0."""


class BoundPath:
    """The path of a socket that this process has bound."""

    def __init__(self, path: str) -> None:
        """To be called while ``claimed`` holds the path."""
        self._path = Path(path)
        self._status = self._path.lstat()
        self._removed = False

    def remove(self) -> None:
        """Remove the path if it still leads to our socket. Never raises; a second call does nothing.

        The socket must still be open: as long as it is, no other file can have its inode.
        """
        if self._removed:
            return
        self._removed = True
        with suppress(OSError), _locked([self._path.parent]):
            if os.path.samestat(self._path.lstat(), self._status):
                self._path.unlink()


@contextmanager
def claimed(paths: Iterable[str]) -> Iterator[None]:
    """Keep other instances off while the block binds sockets at ``paths`` and listens on them.

    Stale sockets are removed at the begin, and those that a block has left behind that raises.

    Raises:
        OSError: somebody listens there, or something stands there that is no socket. One sentence that says what to do.
    """
    every = [*paths]
    for path in every:
        if every.count(path) > 1:
            raise OSError(errno.EADDRINUSE, f"{path} stands there twice")
        if (length := len(os.fsencode(path))) > PATH_BYTES_MAX:
            # Python refuses it as well, but with an error that has no ``strerror``.
            reason = f"{path} has {length} bytes, and the path of a socket {PATH_BYTES_MAX} at most; name a shorter one"
            raise OSError(errno.ENAMETOOLONG, reason)
    with _locked(Path(path).parent for path in every):
        for path in every:
            _make_way(path)
        try:
            yield
        except BaseException:
            for path in every:
                with suppress(OSError):
                    _make_way(path)
            raise


def _make_way(path: str) -> None:
    """Remove a stale socket."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        kind = kind_of(mode) or "a regular file"
        raise OSError(errno.EEXIST, f"{path} is {kind}, not a socket; remove it, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
        except OSError as error:
            reason = f"{path} cannot be asked whether somebody listens there: {error.strerror}"
            raise OSError(error.errno, reason) from error
    raise OSError(errno.EADDRINUSE, f"another server listens at {path}; stop it, or name another path")


@contextmanager
def _locked(directories: Iterable[Path]) -> Iterator[None]:
    """The directories locked, in an order that is the same for everybody; unlocked where they know no locks."""
    with ExitStack() as stack:
        for directory in sorted({each.absolute() for each in directories}):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            _lock(descriptor, directory)
        yield


def _lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_S_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"another process holds the lock of {directory}") from error
            time.sleep(_LOCK_POLL_S)
        except OSError:
            return  # A file system without locks.
        else:
            return
