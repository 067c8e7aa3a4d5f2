"""Crash console: writes the traceback of each unexpected exception once to stderr, redacted, with the path of the log.

It is off outside of ``crashes_on_stderr``, since a library should not write to stderr. A token bucket allows
``BURST_MAX`` tracebacks at once and ``TRACEBACKS_PER_MINUTE`` in the long run. Further tracebacks are only counted
here. The console replaces no record: the log records each exception by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..console import own_stderr
from .exception_fields import mark_shown, safe_traceback
from .redact import Redactor

BURST_MAX = 10
TRACEBACKS_PER_MINUTE = 10


class CrashConsole:
    """Output of crashes with a bounded rate.

    Args:
        write: writes text; it must neither wait nor raise.
        clock: gives a monotonic time in seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._tokens = float(BURST_MAX)
        self._refilled_at = clock()
        self._unshown = 0
        self._held: list[str] | None = None

    def show(self, event: str, about: str, error: BaseException, redactor: Redactor, where: str) -> None:
        """Write the traceback of ``error`` if ``admits`` returns True.

        Args:
            event: the name of the event, which begins the headline.
            about: one sentence about the crash for the headline, or empty.
            error: the exception.
            redactor: hides the secrets in the text.
            where: the path of the log that has the record, or empty.
        """
        if self.admits(error):
            head = redactor.text(f"{event}: {about}" if about else event)
            place = f"(its record is in {where})\n" if where else ""
            self._put(f"{head}\n{safe_traceback(error, redactor)}{place}")

    def admits(self, error: BaseException) -> bool:
        """Decide whether the traceback of ``error`` is to be shown, and mark ``error`` as shown in any case.

        Returns True after a token was taken; False if the error was marked before, or if no token is left. In the
        latter case the crash is counted, and the first one of a row is announced by a line.
        """
        if mark_shown(error):
            return False
        now = self._clock()
        self._tokens = min(BURST_MAX, self._tokens + (now - self._refilled_at) * TRACEBACKS_PER_MINUTE / 60)
        self._refilled_at = now
        if self._tokens < 1:
            self._unshown += 1
            if self._unshown == 1:
                self._put(f"more than {BURST_MAX} crashes at once: the next ones are only counted here; see the log\n")
            return False
        self._tokens -= 1
        self._report_unshown()
        return True

    def hold(self) -> None:
        """Keep the output in memory until ``release`` or ``take_held``."""
        self._held = []

    def take_held(self) -> str:
        """End ``hold`` and return the kept output."""
        held, self._held = self._held or [], None
        return "".join(held)

    def release(self) -> None:
        """End ``hold`` and write the kept output."""
        if text := self.take_held():
            self._put(text)

    def close(self) -> None:
        """Write the kept output and the number of crashes that were not shown."""
        self.release()
        self._report_unshown()

    def _report_unshown(self) -> None:
        if self._unshown:
            self._put(f"crashes that were not shown here: {self._unshown}\n")
            self._unshown = 0

    def _put(self, text: str) -> None:
        if self._held is None:
            self._write(text)
        else:
            self._held.append(text)


_console: CrashConsole | None = None
"""The crash console of this process; None unless ``crashes_on_stderr`` is active."""


def shown_crashes() -> CrashConsole | None:
    """The crash console of this process; None unless ``crashes_on_stderr`` is active."""
    return _console


def show_crash(event: str, about: str, error: BaseException, redactor: Redactor, where: str = "") -> None:
    """``CrashConsole.show`` on the console of this process, if there is one. Never raises an ``Exception``."""
    if _console is not None:
        with suppress(Exception):  # Any method of a foreign exception may raise. The log has its record.
            _console.show(event, about, error, redactor, where)


@contextmanager
def crashes_on_stderr() -> Iterator[CrashConsole]:
    """Context manager: write crashes of this process to stderr until the block ends; gives the crash console.

    Within a nested block, the inner console replaces the outer one.
    """
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
