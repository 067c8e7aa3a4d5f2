"""Tracebacks of crashes on stderr: each unexpected exception once, redacted, with the path of the log.

Off until the program turns it on (``crashes_on_stderr``), since stderr belongs to the program and not to a library. A
token bucket bounds the output: ``BURST_MAX`` tracebacks at once and ``TRACEBACKS_PER_MINUTE`` in the long run; further
ones are counted, and are in the log all the same. Writing never waits for a reader.
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
    """The output of crashes. ``clock`` counts seconds; ``write`` must not wait, and drops what it cannot write."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._tokens = float(BURST_MAX)
        self._refilled_at = clock()
        self._unshown = 0
        self._held: list[str] | None = None

    def show(self, event: str, about: str, error: BaseException, redactor: Redactor, where: str) -> None:
        """Show a crash, unless it was shown before; ``where`` is the path of the log, or empty."""
        if self.admits(error):
            head = redactor.text(f"{event}: {about}" if about else event)
            place = f"(its record is in {where})\n" if where else ""
            self._put(f"{head}\n{safe_traceback(error, redactor)}{place}")

    def admits(self, error: BaseException) -> bool:
        """Whether a crash is to be shown: it was not shown before, and a token is left. It counts as shown then."""
        if mark_shown(error):
            return False
        now = self._clock()
        self._tokens = min(BURST_MAX, self._tokens + (now - self._refilled_at) * TRACEBACKS_PER_MINUTE / 60)
        self._refilled_at = now
        if self._tokens < 1:
            self._unshown += 1
            if self._unshown == 1:
                self._put(f"more than {BURST_MAX} crashes in a row: the next ones are counted, and are in the log\n")
            return False
        self._tokens -= 1
        self._report_unshown()
        return True

    def hold(self) -> None:
        """Keep what is to be shown until ``release`` or ``take_held``."""
        self._held = []

    def take_held(self) -> str:
        """Return what was held, and hold no more."""
        held, self._held = self._held or [], None
        return "".join(held)

    def release(self) -> None:
        """Show what was held, and hold no more."""
        if text := self.take_held():
            self._put(text)

    def close(self) -> None:
        """Say how many crashes were not shown."""
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
"""The console of this process, while crashes are shown."""


def shown_crashes() -> CrashConsole | None:
    """Return the crash console of this process; None while crashes are not shown."""
    return _console


def show_crash(event: str, about: str, error: BaseException, redactor: Redactor, where: str = "") -> None:
    """Show a crash on the console of this process, if there is one. Never raises an ``Exception``."""
    if _console is not None:
        with suppress(Exception):  # A foreign exception may raise from any method; the log has its record.
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
