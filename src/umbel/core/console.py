"""Messages of a serving process on stdout and stderr. A closed pipe must not end the process."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STDERR = 2


def announce(addresses: Iterable[str], recorder: object) -> None:
    """Write the listening addresses to stdout, or to stderr if ``recorder`` writes its records to stdout."""
    lines = [f"Umbel runs on {address} (Ctrl-C stops it)" for address in addresses]
    if getattr(recorder, "on_stdout", False):
        for line in lines:
            say(line)
        return
    try:
        for line in lines:
            _write(sys.stdout, f"{line}\n")
    except (OSError, ValueError):  # The pipe's reader is gone, or (ValueError) stdout is closed.
        # Python would write the rest of the buffer again when it exits, fail, and exit with status 120.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of the process


def say(sentence: str) -> None:
    """Write a line to stderr. Never raises if the pipe's reader is gone or stderr is closed."""
    with suppress(OSError, ValueError):
        _write(sys.stderr, f"{sentence}\n")


def say_at_once(sentence: str) -> None:
    """Write a line to stderr if its reader takes it now, for threads that must not wait. Never raises."""
    with own_stderr() as descriptor, suppress(OSError):
        os.write(descriptor, f"{sentence}\n".encode("utf-8", "backslashreplace"))


def fill_standard_descriptors() -> None:
    """Open /dev/null as stdin, stdout or stderr if the process was started without it.

    Otherwise the next opened file or socket would get the number 0, 1 or 2, and the messages meant for a terminal.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number, which is ``descriptor``.
            os.set_inheritable(descriptor, True)


@contextmanager
def own_stderr() -> Iterator[int]:
    """Context manager: gives a descriptor of stderr whose writes do not wait for the reader of a pipe or terminal.

    A pipe or terminal is opened a second time, because O_NONBLOCK would otherwise apply to all processes that share it.
    If it cannot be opened again, the descriptor is 2, and a write may wait. The second descriptor is closed at the end.
    """
    descriptor = _STDERR
    with suppress(OSError):
        mode = os.fstat(_STDERR).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(f"/proc/self/fd/{_STDERR}", flags)
    try:
        yield descriptor
    finally:
        if descriptor != _STDERR:
            os.close(descriptor)


def _write(stream: object, text: str) -> None:
    """Write and flush; do nothing if ``stream`` is None (the process was started without stdout or stderr)."""
    if stream is not None:
        stream.write(text)  # type: ignore[attr-defined]  # a text stream
        stream.flush()  # type: ignore[attr-defined]
