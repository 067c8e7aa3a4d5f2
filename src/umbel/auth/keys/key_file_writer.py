"""Addition of a key to a file of API keys: the file is validated before and after, and replaced by rename.

The gateway may read the file at any moment, so it must be complete at any moment. The new content is written to a
temporary file in the same directory, which has the mode and the owner of the old one, and then renamed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...config.loading.file_reader import why
from .key_file import SIZE_MAX, KeyFileError, KeyMistake, keys_in, read_text

NEW_MODE = 0o600
"""The mode of a new file."""

# The empty list, to which TOML lets nobody add a table. Only whole lines, so none within a text of several lines is
# mistaken for it without the validation afterwards failing.
_EMPTY_LIST = re.compile(r"^[ \t]*keys[ \t]*=[ \t]*\[[ \t]*\][ \t]*(?:#[^\r\n]*)?\r?(?:\n|\Z)", re.MULTILINE)


def add_table(path: str, table: str, before: Callable[[], None] = lambda: None) -> None:
    """Append a table ``[[keys]]`` to the file at ``path``, or make the file. Blocks. Symbolic links are followed.

    Args:
        path: the path of the file.
        table: the table, in TOML.
        before: called when all is ready, just before the file is replaced. If it raises, the file is as it was.

    Raises:
        KeyFileError: the file has a mistake, cannot be read or written, or another process is adding a key. The file is
            as it was.
    """
    target = Path(os.path.realpath(path))
    try:
        with _locked(target.parent):
            old = _old_text(target)
            new = _with_table(old or "", table)
            _replace(target, new.encode(), before, exists=old is not None)
    except BlockingIOError:
        raise _error("another command is changing the files of this directory; try again") from None
    except (OSError, ValueError) as error:
        raise _error(f"cannot be written: {why(error)}") from error


def _error(reason: str) -> KeyFileError:
    return KeyFileError((KeyMistake(None, "", reason),))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Context manager: no other command adds a key to a file of the directory.

    Raises:
        BlockingIOError: another command does.
        OSError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _old_text(target: Path) -> str | None:
    """Return the text of the file; None if there is none.

    Raises:
        KeyFileError: the file has a mistake. One without any key is none here.
    """
    if not target.exists():
        return None
    text = read_text(str(target))
    if _without_comments(text):
        keys_in(text)
    return text


def _without_comments(text: str) -> str:
    return re.sub(r"^[ \t]*#[^\n]*", "", text, flags=re.MULTILINE).strip()


def _with_table(text: str, table: str) -> str:
    """Return the content with the table.

    Raises:
        KeyFileError: the result would be no file of keys, since the keys are a list in brackets.
    """
    if _without_comments(text) and not keys_in(text):
        text = _EMPTY_LIST.sub("", text)
    if text and not text.endswith("\n"):
        text += "\n"
    new = f"{text}\n{table}" if text.strip() else table
    if len(new.encode()) > SIZE_MAX:
        raise _error(f"would be larger than {SIZE_MAX // 10**6} MB with one more key; remove keys that have expired")
    try:
        keys_in(new)
    except KeyFileError:
        raise _error("has its keys as a list in brackets; write each as a table [[keys]] first") from None
    return new


def _replace(target: Path, content: bytes, before: Callable[[], None], *, exists: bool) -> None:
    """Replace the file by rename, with the mode and the owner of the old one.

    Raises:
        OSError: it cannot be written, or the owner cannot be kept.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if exists:
                status, own = target.stat(), os.fstat(descriptor)
                if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        before()
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
