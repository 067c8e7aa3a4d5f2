"""Opening of regular files only, without waiting: named pipes, devices and sockets are refused.

A FIFO that nobody writes to holds up whoever opens it, a device may hold up or do anything, and neither is what the
operator meant. Every path that comes from a configuration or a directory of ours is opened by ``open_regular``.
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
"""Flags of every opening: it neither waits for another process nor makes a terminal ours."""


def kind_of(mode: int) -> str:
    """What a file of this mode is where it is no regular one, such as "a named pipe"; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something unknown")


def not_regular(mode: int, path: str | os.PathLike[str]) -> OSError:
    """The error for a file at ``path`` that is not regular, of this mode."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "it is a directory", os.fspath(path))
    return OSError(errno.EINVAL, f"it is {kind_of(mode)}, not a regular file", os.fspath(path))


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """``os.open`` for a regular file; the descriptor is closed on exec. Symbolic links are followed.

    Raises:
        OSError: as ``os.open``; or something else than a regular file stands there, which is not opened (the opening
            of a device may have an effect).
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
        found = os.fstat(descriptor).st_mode  # What stands there may have been replaced in the meantime.
        if kind_of(found):
            raise not_regular(found, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


NOT_WRITABLE_REMEDY = "check it as the user of the service, and give that user the directory"
"""What to do about ``why_not_writable``."""


def why_not_writable(path: str | os.PathLike[str]) -> str:
    """Why this process could not write the file at ``path``, or make it with its directories; empty if it could.

    Judged by what stands there now and for the user that runs this. Nothing is made or opened.
    """
    for each in (place := Path(path).absolute(), *place.parents):
        try:
            is_directory = stat.S_ISDIR(each.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{each} cannot be looked at: {error.strerror}"
        if is_directory is (each == place):
            return f"{each} is {'' if is_directory else 'not '}a directory"
        if not os.access(each, os.W_OK | (os.X_OK if is_directory else 0), effective_ids=True):
            return f"{each} is not writable for the user that runs this (number {os.geteuid()})"
        return ""
    return ""
