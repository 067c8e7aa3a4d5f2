"""Opening of regular files only, without waiting: named pipes, devices and sockets are refused.

Opening a FIFO blocks until another process opens its other end, and opening a device may have any effect. So a path
from a configuration or a directory is opened with ``open_regular``.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
}
NEVER_WAIT = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""Flags of ``os.open``: do not wait for another process, and do not become the controlling process of a terminal."""


def kind_of(mode: int) -> str:
    """The kind of a file that is not regular, by its ``st_mode``, such as "a named pipe"; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something unknown")


def not_regular(mode: int, path: str | os.PathLike[str]) -> OSError:
    """Make the error for a file at ``path`` that is not regular; ``mode`` is its ``st_mode``."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "it is a directory", os.fspath(path))
    return OSError(errno.EINVAL, f"it is {kind_of(mode)}, not a regular file", os.fspath(path))


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """``os.open`` for a regular file. The descriptor is closed on exec. Symbolic links are followed.

    Raises:
        OSError: as ``os.open``, or the path leads to a file that is not regular; such a file is not opened.
    """
    try:
        found = Path(path).stat().st_mode
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    else:
        if kind_of(found):
            raise not_regular(found, path)
    descriptor = os.open(path, flags | NEVER_WAIT, mode)
    try:
        found = os.fstat(descriptor).st_mode  # The file may have been replaced between ``stat`` and ``open``.
        if kind_of(found):
            raise not_regular(found, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


NOT_WRITABLE_REMEDY = "run this check as the user of the service, and let that user write to the directory"
"""Advice for the operator after ``why_not_writable``."""


def why_not_writable(path: str | os.PathLike[str]) -> str:
    """Why this process cannot write or create the file at ``path`` with its directories; empty if it can.

    The check is for the effective user of this process. It opens and creates nothing.
    """
    for each in (place := Path(path).absolute(), *place.parents):
        try:
            is_directory = stat.S_ISDIR(each.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{each} cannot be checked: {error.strerror}"
        if is_directory is (each == place):
            return f"{each} is {'' if is_directory else 'not '}a directory"
        if not os.access(each, os.W_OK | (os.X_OK if is_directory else 0), effective_ids=True):
            return f"{each} is not writable for the user of this process (uid {os.geteuid()})"
        return ""
    return ""
