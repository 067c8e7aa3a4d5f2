"""Paths of Unix sockets: bound only if no process listens there, and removed only by the process that bound them.

The path remains when its socket is closed, and a stale path must be removed before the next bind. Only an attempt to
connect shows whether a path is stale. From that attempt until the new socket listens, the process holds a lock (flock)
of the directory. Otherwise two processes could both find the path stale, and one would remove the other's new socket.
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
"""Most seconds to wait for the lock of a directory, which another process needs for milliseconds."""
_LOCK_POLL_S = 0.01
PATH_BYTES_MAX = 107
"""Most bytes of a path. On Linux ``sun_path`` has 108 bytes, and the last one is 0."""


class BoundPath:
    """The path of a Unix socket that this process has bound."""

    def __init__(self, path: str) -> None:
        """Remember which file is at ``path`` now. To be called inside of ``claimed``, after the bind."""
        self._path = Path(path)
        self._status = self._path.lstat()
        self._removed = False

    def remove(self) -> None:
        """Remove the path if it still names this process's socket. Never raises; a second call does nothing.

        The socket must still be open: while it is, no other file can have its inode number.
        """
        if self._removed:
            return
        self._removed = True
        with suppress(OSError), _locked([self._path.parent]):
            if os.path.samestat(self._path.lstat(), self._status):
                self._path.unlink()


@contextmanager
def claimed(paths: Iterable[str]) -> Iterator[None]:
    """Remove stale sockets at ``paths``, and lock their directories while the block binds there and listens.

    If the block raises, the sockets that it left are removed.

    Raises:
        OSError: a process listens there, the path is no socket, is too long or is given twice, or the directory cannot
            be locked. The message says what to do.
    """
    every = [*paths]
    for path in every:
        if every.count(path) > 1:
            raise OSError(errno.EADDRINUSE, f"{path} is given twice; remove one of them")
        if (length := len(os.fsencode(path))) > PATH_BYTES_MAX:
            # Python refuses it too, but with an error without ``strerror``.
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
    """Remove a stale socket at ``path``, if there is one.

    Raises:
        OSError: a process listens there, or the path is no socket.
    """
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
            pass  # The backlog is full, so a process listens.
        except OSError as error:
            reason = f"cannot find out whether a process listens at {path}: {error.strerror}; name another path"
            raise OSError(error.errno, reason) from error
    raise OSError(errno.EADDRINUSE, f"another server listens at {path}; stop it, or name another path")


@contextmanager
def _locked(directories: Iterable[Path]) -> Iterator[None]:
    """Lock the directories while the block runs, in sorted order, so that two processes cannot wait for each other.

    A directory on a file system without locks stays unlocked.
    """
    with ExitStack() as stack:
        for directory in sorted({each.absolute() for each in directories}):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            _lock(descriptor, directory)
        yield


def _lock(descriptor: int, directory: Path) -> None:
    """Lock a directory, and wait for up to ``LOCK_S_MAX``.

    Raises:
        OSError: another process holds the lock for longer (EBUSY).
    """
    deadline = time.monotonic() + LOCK_S_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"another process holds the lock of {directory}; end it, or wait") from error
            time.sleep(_LOCK_POLL_S)
        except OSError:
            return  # A file system without locks.
        else:
            return
