"""What a process that serves tells people. Whether anybody reads it must not matter to what is served."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_STANDARD = (0, 1, 2)


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
    with suppress(OSError, ValueError):  # as above; stderr has no buffer
        _write(sys.stderr, f"{sentence}\n")


def fill_standard_descriptors() -> None:
    """Open /dev/null in the place of stdin, stdout and stderr where the process was started without them.

    Else the next file or socket that is opened has such a number, and gets what is meant for a reader.
    """
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free, so this one.
            os.set_inheritable(descriptor, True)


def _write(stream: object, text: str) -> None:
    """Nothing where Python has no such stream, because the process was started without it."""
    if stream is not None:
        stream.write(text)  # type: ignore[attr-defined]  # a text stream
        stream.flush()  # type: ignore[attr-defined]
