"""The pidfile, held under its flock: the process that holds the lock is the master, whatever pid the file contains.

An unlocked pidfile is stale, and is taken over.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...core.errors import ConfigError, ConfigProblem
from ...core.regular_file import open_regular

_PID_BYTES_MAX = 32


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """Context manager: hold the pidfile; at the end empty it, and remove it if that is permitted. None: do nothing.

    Raises:
        ConfigError: a running master holds the file, it is not a pidfile, or it cannot be written.
    """
    if path is None:
        yield
        return
    with ExitStack() as stack:
        try:
            descriptor = _locked(Path(path))
            stack.callback(_give_up, descriptor, Path(path))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            reason = f"{path} cannot be written: {error.strerror}"
            raise ConfigError([ConfigProblem("", None, "pid_path", reason)]) from error
        yield


def _give_up(descriptor: int, path: Path) -> None:
    """Empty, remove and unlock the file. Never raises: a missing permission must not fail a graceful stop."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)  # In a directory of another user, the file can be emptied but not removed.
    with suppress(OSError):
        # An operator may have replaced the file: only the own one is removed.
        if _stands(descriptor, path):
            path.unlink(missing_ok=True)
    os.close(descriptor)


def _locked(path: Path) -> int:
    """Open and lock the pidfile; return its descriptor."""
    while True:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands(descriptor, path):
                _check_content(descriptor, path)
                return descriptor
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            reason = f"{path} is held by a running master (process {owner}); stop that master, or name another file"
            raise ConfigError([ConfigProblem("", None, "pid_path", reason)]) from error
        except BaseException:
            os.close(descriptor)
            raise
        # The previous owner removed the file between open() and flock(): the lock of a removed file protects nothing.
        os.close(descriptor)


def _check_content(descriptor: int, path: Path) -> None:
    """Refuse a file that is not a pidfile: it would be overwritten now and removed at the end."""
    content = os.pread(descriptor, _PID_BYTES_MAX + 1, 0).strip()
    if len(content) > _PID_BYTES_MAX or not (content.isdigit() or not content):
        reason = f"{path} contains something other than a process id; remove the file, or name another one"
        raise ConfigError([ConfigProblem("", None, "pid_path", reason)])


def _stands(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
