"""Crashes on the terminal: the traceback of an exception that nobody expected, once, and where its record is.

Off unless whoever owns the process turns it on (``crashes_on_stderr``), since stderr belongs to the process and not to
a library. What is shown is redacted as the log is. It is bounded: ``AT_ONCE`` tracebacks at once and ``PER_MINUTE`` in
the long run; the others are counted, and stand in the log all the same. Nothing here ever waits for a reader.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..core.console import own_stderr
from .records.exception_fields import mark_shown, safe_traceback
from .records.redact import Redactor

AT_ONCE = 10
PER_MINUTE = 10


class CrashConsole:
    """Shows crashes. ``clock`` counts seconds; ``write`` takes a text, and drops what it cannot put out now."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._left = float(AT_ONCE)
        self._at = clock()
        self._unshown = 0
        self._held: list[str] | None = None

    def show(self, event: str, about: str, error: BaseException, redactor: Redactor, where: str) -> None:
        """Show one crash, unless it was shown before; ``where`` is the path of the log, if there is one."""
        if self.admits(error):
            head = redactor.text(f"{event}: {about}" if about else event)
            place = f"(its record is in {where})\n" if where else ""
            self._put(f"{head}\n{safe_traceback(error, redactor)}{place}")

    def admits(self, error: BaseException) -> bool:
        """Whether a crash is to be shown now: for the first time, and within the bounds. It counts as shown then."""
        if mark_shown(error):
            return False
        now = self._clock()
        self._left = min(AT_ONCE, self._left + (now - self._at) * PER_MINUTE / 60)
        self._at = now
        if self._left < 1:
            self._unshown += 1
            if self._unshown == 1:
                self._put(f"more than {AT_ONCE} crashes in a row: the next ones are counted, and are in the log\n")
            return False
        self._left -= 1
        self._tell_unshown()
        return True

    def hold(self) -> None:
        """Keep what is to be shown until ``release`` or ``taken``: somebody else may tell it."""
        self._held = []

    def taken(self) -> str:
        """What was held, for whoever tells it instead."""
        held, self._held = self._held or [], None
        return "".join(held)

    def release(self) -> None:
        """Show what was held, and hold no more."""
        if text := self.taken():
            self._put(text)

    def close(self) -> None:
        """Say how many crashes were not shown."""
        self.release()
        self._tell_unshown()

    def _tell_unshown(self) -> None:
        if self._unshown:
            self._put(f"crashes that were not shown here: {self._unshown}\n")
            self._unshown = 0

    def _put(self, text: str) -> None:
        if self._held is None:
            self._write(text)
        else:
            self._held.append(text)


_console: CrashConsole | None = None
"""The one of this process, while it is on."""


def shown_crashes() -> CrashConsole | None:
    """The process's console of crashes; None while it is off."""
    return _console


def show_crash(event: str, about: str, error: BaseException, redactor: Redactor, where: str = "") -> None:
    """``CrashConsole.show`` on the process's own; nothing while it is off. Never raises an ``Exception``."""
    if _console is not None:
        with suppress(Exception):  # A foreign exception may raise at any look; the log has told it as well as it could.
            _console.show(event, about, error, redactor, where)


@contextmanager
def crashes_on_stderr() -> Iterator[CrashConsole]:
    """Show crashes on stderr until the block ends."""
    global _console
    former = _console
    with own_stderr() as descriptor:

        def write(text: str) -> None:
            with suppress(OSError):
                os.write(descriptor, text.encode("utf-8", "backslashreplace"))

        console = _console = CrashConsole(write)
        try:
            yield console
        finally:
            _console = former
            console.close()
