"""Request console: one line on a terminal for each request: time, method, path, status, duration, and what failed.

It is off outside of ``requests_on_stderr``. At most ``LINES_MAX`` lines a second are written; one line a second counts
the others. Writing never waits: a line that the terminal does not take is counted, and the count is written when it
takes lines again. The console replaces no record.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..console import own_stderr
from ..failure_kinds import CUT

if TYPE_CHECKING:
    from ..events import RequestEnded
    from ..model import Outcome
    from .redact import Redactor

LINES_MAX = 200
"""The largest number of lines within a second."""
PATH_CHARS_MAX = 200
NAME_CHARS_MAX = 40
"""The bound on a method and on a name of a call."""
FAILED_MAX = 5
"""The largest number of failed calls that a line names."""
_EVERY_S = 1.0
_GREEN, _YELLOW, _RED, _RESET = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"


class RequestConsole:
    """Output of requests with a bounded rate.

    Args:
        write: writes bytes, and returns how many it has written; it must neither wait nor raise.
        coloured: whether statuses are coloured.
        clock: gives the time in seconds since 1970.
    """

    def __init__(
        self, write: Callable[[bytes], int], *, coloured: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._coloured = coloured
        self._clock = clock
        self._second = 0
        self._lines = 0
        """Lines within the present second."""
        self._more = 0
        """Requests beyond the rate that no line has counted yet."""
        self._lost = 0
        """Requests whose lines the terminal has not taken, and that no line has counted yet."""
        self._rest = b""
        """The rest of a line that was written in part."""
        self._reported_at = 0.0
        self._lock = threading.Lock()
        """Servers of one process may run in several threads. It is held for microseconds: writing never waits."""

    def show(self, event: RequestEnded, redactor: Redactor) -> None:
        """Write the line of a request that has ended, or count it."""
        now = self._clock()
        with self._lock:
            if int(now) != self._second:
                self._second, self._lines = int(now), 0
            if self._lines >= LINES_MAX:
                self._more += 1
                return
            self._lines += 1
            if not self._put(f"{_time(now)} {_line(event, redactor, self._coloured)}\n"):
                self._lost += 1

    def report(self) -> None:
        """Write how many requests were not shown since the last report, if any; at most once a second."""
        now = self._clock()
        with self._lock:
            if now - self._reported_at < _EVERY_S / 2:  # Several servers of this process may call it.
                return
            self._reported_at = now
            more = "request" if self._more == 1 else "requests"
            if self._more and self._put(f"… {self._more:,} more {more} in the last second\n"):
                self._more = 0
            if self._lost and self._put(f"… {self._lost:,} requests were not shown: the terminal took no more lines\n"):
                self._lost = 0

    async def run(self) -> None:
        """Call ``report`` every second until cancelled."""
        while True:
            await trio.sleep(_EVERY_S)
            self.report()

    def _put(self, line: str) -> bool:
        """Write a line; False if nothing of it was written. The rest of a line that was written in part comes first."""
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
        data = line.encode("utf-8", "backslashreplace")
        written = self._write(data)
        self._rest = data[written:] if written else b""
        return written > 0


def _line(event: RequestEnded, redactor: Redactor, coloured: bool) -> str:
    request = event.request
    path = redactor.text(_short(request.path, PATH_CHARS_MAX))
    status, broke_off = str(event.status), event.broke_off
    if coloured:
        colour = _RED if event.status >= 500 or broke_off else _YELLOW if event.status >= 400 else _GREEN
        status = f"{colour}{status}{_RESET}"
    # Calls that were cut with the request, because the client left, say nothing that its kind does not say.
    failed = [outcome for outcome in event.calls if outcome.worst is not None and outcome.worst.kind not in CUT]
    why = f"cut off: {event.kind}" if broke_off else _failed(failed) if failed else str(event.kind or "")
    duration_ms = (event.ended_at - request.started_at) * 1000
    method = _printable(_short(request.method, NAME_CHARS_MAX)) or "-"
    return f"{method} {_printable(path) or '-'} {status} {duration_ms:.1f} ms{'  ' if why else ''}{why}"


def _failed(outcomes: Sequence[Outcome]) -> str:
    shown = []
    for outcome in outcomes[:FAILED_MAX]:
        failure = outcome.worst
        name = _printable(_short(outcome.call, NAME_CHARS_MAX))
        shown.append(f"{name}: {'' if failure is None else failure.kind}")
    if len(outcomes) > FAILED_MAX:
        shown.append(f"and {len(outcomes) - FAILED_MAX} more")
    return ", ".join(shown)


def _time(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[:chars] + "…"


def _printable(text: str) -> str:
    """Escape all characters that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


_console: RequestConsole | None = None
"""The request console of this process; None unless ``requests_on_stderr`` is active."""


def shown_requests() -> RequestConsole | None:
    """The request console of this process; None unless ``requests_on_stderr`` is active."""
    return _console


def stderr_is_terminal() -> bool:
    """Whether stderr is a terminal."""
    try:
        return os.isatty(2)
    except OSError:
        return False


@contextmanager
def requests_on_stderr(shown: bool) -> Iterator[None]:
    """Context manager: write a line for each request of this process to stderr until the block ends, if ``shown``.

    Statuses are coloured unless the environment has a ``NO_COLOR`` that is not empty. If stderr cannot be opened for
    writes that do not wait, nothing is written.
    """
    global _console
    if not shown:
        yield
        return
    former = _console
    with own_stderr() as descriptor:

        def write(data: bytes) -> int:
            try:
                return os.write(descriptor, data)
            except OSError:
                return 0

        coloured = not os.environ.get("NO_COLOR")
        console = _console = None if descriptor == 2 else RequestConsole(write, coloured=coloured)
        try:
            yield
        finally:
            _console = former
            if console is not None:
                console.report()
