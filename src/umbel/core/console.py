"""Messages of a serving process on stdout and stderr. A reader that is slow or gone must not disturb the process."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STDERR = 2


def announce(addresses: Iterable[str], recorder: object) -> None:
    """Write to stdout where it is served; to stderr if records of ``recorder`` go to stdout, which programs read."""
    lines = [f"Umbel runs on {address} (Ctrl-C stops it)" for address in addresses]
    if getattr(recorder, "on_stdout", False):
        for line in lines:
            say(line)
        return
    try:
        for line in lines:
            _write(sys.stdout, f"{line}\n")
    except (OSError, ValueError):  # Its reader has gone; ValueError: it is closed.
        # What is left in the buffer would be written again at the end of the process, and make its status 120.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of the process


def say(sentence: str) -> None:
    """Write a line to stderr."""
    with suppress(OSError, ValueError):  # As above; stderr has no buffer.
        _write(sys.stderr, f"{sentence}\n")


def fill_standard_descriptors() -> None:
    """Open /dev/null in the place of stdin, stdout and stderr where the process was started without them.

    Else the next file or socket that is opened has such a number, and gets what is meant for a reader.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free, so this one.
            os.set_inheritable(descriptor, True)


@contextmanager
def own_stderr() -> Iterator[int]:
    """A descriptor of stderr whose writes never wait for its reader.

    A pipe or a terminal is opened once more, so that it is non-blocking for this alone; a file never blocks.
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
    """Nothing where Python has no such stream, because the process was started without it."""
    if stream is not None:
        stream.write(text)  # type: ignore[attr-defined]  # a text stream
        stream.flush()  # type: ignore[attr-defined]
