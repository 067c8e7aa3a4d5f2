"""The request console: its lines, their rate, and terminals that take no lines."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.logs.event_factories import request_ended, request_facts
from tests.support.logs.sinks import MemoryLog
from umbel.core.diagnostics import request_console
from umbel.core.diagnostics.redact import Redactor
from umbel.core.diagnostics.request_console import LINES_MAX, RequestConsole, requests_on_stderr, shown_requests
from umbel.core.failure_kinds import Kind
from umbel.core.model import Failure, Outcome


class Terminal:
    """A terminal that takes ``room`` bytes, and a console over it with a manual clock."""

    def __init__(self, *, coloured: bool = False) -> None:
        self.now = 1_000_000.25
        self.room = 10**9
        self.taken = b""
        self.console = RequestConsole(self._write, coloured=coloured, clock=lambda: self.now)

    def _write(self, data: bytes) -> int:
        taken = data[: self.room]
        self.taken += taken
        self.room -= len(taken)
        return len(taken)

    def show(self, status: int = 200, **changes: Any) -> None:
        self.console.show(request_ended(status, **changes), Redactor())

    @property
    def lines(self) -> list[str]:
        """The lines without their time."""
        return [re.sub(r"^\d\d:\d\d:\d\d\.\d{3} ", "", line) for line in self.taken.decode().splitlines()]


def failed(call: str, kind: Kind) -> Outcome:
    return Outcome(call, "failed", None, Failure(kind, 502, "failed"), 10.0, 10.1)


def test_a_line_has_time_method_path_status_duration_and_failed_calls() -> None:
    terminal = Terminal()
    terminal.show(calls=[Outcome("user", "value", 1), failed("offers", Kind.TIMEOUT), failed("x", Kind.CONNECT)])
    terminal.show(404)
    terminal.show(500, kind=Kind.INTERNAL)
    assert re.match(rb"\d\d:\d\d:\d\d\.250 GET ", terminal.taken)
    assert terminal.lines == [
        "GET /dashboard/42 200 250.0 ms  offers: timeout, x: connect",
        "GET /dashboard/42 404 250.0 ms",
        "GET /dashboard/42 500 250.0 ms  internal",
    ]


def test_calls_that_ended_because_the_client_left_are_not_named() -> None:
    terminal = Terminal()
    terminal.show(499, kind=Kind.CLIENT_GONE, calls=[failed("user", Kind.CLIENT_GONE)] * 3)
    terminal.show(499, kind=Kind.CLIENT_GONE, calls=[failed("user", Kind.CLIENT_GONE), failed("x", Kind.CONNECT)])
    assert terminal.lines == [
        "GET /dashboard/42 499 250.0 ms  client-gone",
        "GET /dashboard/42 499 250.0 ms  x: connect",
    ]


def test_no_value_controls_the_terminal_or_makes_the_line_long() -> None:
    terminal = Terminal()
    request = request_facts(method="\x1b[2J" * 99, path="/\x9b31m\r\n\u202e/token=hunter2" + "é" * 5000)
    terminal.show(request=request, calls=[failed("\x07" * 99, Kind.TIMEOUT)] * 50)
    [line] = terminal.lines
    assert line.isprintable()
    assert "hunter2" not in line
    assert line.endswith("and 45 more")
    assert len(line) < 2500


@pytest.mark.parametrize(("status", "code"), [(200, 32), (304, 32), (404, 33), (503, 31)])
def test_only_the_status_is_coloured(status: int, code: int) -> None:
    terminal = Terminal(coloured=True)
    terminal.show(status)
    assert terminal.lines == [f"GET /dashboard/42 \x1b[{code}m{status}\x1b[0m 250.0 ms"]


def test_the_status_of_a_response_that_broke_off_has_the_colour_of_an_error() -> None:
    terminal = Terminal(coloured=True)
    terminal.show(200, kind=Kind.INTERNAL)
    assert terminal.lines == ["GET /dashboard/42 \x1b[31m200\x1b[0m 250.0 ms  cut off: internal"]


def test_requests_beyond_the_rate_are_counted_in_one_line() -> None:
    terminal = Terminal()
    for _ in range(LINES_MAX + 1234):
        terminal.show()
    assert len(terminal.lines) == LINES_MAX
    terminal.now += 1
    terminal.console.report()
    terminal.console.report()
    terminal.show()
    assert terminal.lines[LINES_MAX:] == ["… 1,234 more requests in the last second", "GET /dashboard/42 200 250.0 ms"]


def test_lines_that_a_terminal_does_not_take_are_counted_and_no_line_is_torn() -> None:
    terminal = Terminal()
    terminal.room = 70
    for _ in range(5):
        terminal.show()
    terminal.console.report()
    assert len(terminal.taken) == 70
    terminal.room, terminal.now = 10**9, terminal.now + 1
    terminal.console.report()
    terminal.show()
    assert terminal.lines == [
        *["GET /dashboard/42 200 250.0 ms"] * 2,
        "… 3 requests were not shown: the terminal took no more lines",
        "GET /dashboard/42 200 250.0 ms",
    ]


@pytest.mark.parametrize("shown", [False, True])
def test_without_a_terminal_nothing_is_written(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The stderr of a test is a file, which cannot be written without waiting.
    monkeypatch.setattr(request_console, "own_stderr", lambda: _Given())
    with requests_on_stderr(shown):
        assert shown_requests() is None


class _Given:
    def __enter__(self) -> int:
        return 2

    def __exit__(self, *_: object) -> None: ...


async def test_the_recorder_shows_requests_but_no_probe(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    terminal, log = Terminal(), MemoryLog()
    monkeypatch.setattr(request_console, "_console", terminal.console)
    async with log.open(probes=("/livez",)) as recorder:
        recorder.record(request_ended(request=request_facts(path="/livez")))
        recorder.record(request_ended())
    assert terminal.lines == ["GET /dashboard/42 200 250.0 ms"]
