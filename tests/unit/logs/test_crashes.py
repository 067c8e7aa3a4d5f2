"""Crashes on stderr: each once, without secrets, and within the rate limit."""

from __future__ import annotations

import logging
import sys
from io import StringIO

import pytest

from umbel.core.diagnostics.crash_console import BURST_MAX, TRACEBACKS_PER_MINUTE, CrashConsole
from umbel.logs import Redactor, crashes_on_stderr, redacted_console, show_crash, shown_crashes


class Shown:
    """A console whose clock the test moves."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.now = 0.0
        self.console = CrashConsole(self.texts.append, lambda: self.now)

    def crash(self, error: BaseException | None = None) -> None:
        self.console.show("request.crashed", "GET /x", error or ValueError("no"), Redactor(), "logs/app.jsonl")

    @property
    def tracebacks(self) -> int:
        return sum(text.count("ValueError: no") for text in self.texts)


def test_an_exception_is_shown_once_with_the_path_of_the_log() -> None:
    shown, error = Shown(), ValueError("no")
    shown.crash(error)
    shown.crash(error)
    assert shown.texts == ["request.crashed: GET /x\nValueError: no\n(its record is in logs/app.jsonl)\n"]


def test_a_crash_on_stderr_shows_no_secret() -> None:
    shown = Shown()
    shown.console.show("x", "token=abcdefgh", ValueError("password=hunter2hunter2"), Redactor(), "")
    assert "hunter2" not in shown.texts[0]
    assert "abcdefgh" not in shown.texts[0]


def test_crashes_beyond_the_rate_limit_are_counted() -> None:
    shown = Shown()
    for _ in range(1000):
        shown.crash()
    assert shown.tracebacks == BURST_MAX
    assert len(shown.texts) == BURST_MAX + 1
    shown.console.close()
    assert shown.texts[-1] == f"crashes that were not shown here: {1000 - BURST_MAX}\n"


def test_more_crashes_are_shown_a_minute_later() -> None:
    shown = Shown()
    for _ in range(BURST_MAX + 5):
        shown.crash()
    shown.now = 60.0
    shown.crash()
    assert shown.texts[-2:-1] == ["crashes that were not shown here: 5\n"]
    for _ in range(100):
        shown.crash()
    assert shown.tracebacks == BURST_MAX + TRACEBACKS_PER_MINUTE


def test_a_held_crash_is_returned_and_not_printed() -> None:
    shown = Shown()
    shown.console.hold()
    shown.crash()
    assert shown.texts == []
    assert "ValueError: no" in shown.console.take_held()
    shown.console.release()
    assert shown.texts == []


def test_no_crash_is_shown_outside_of_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    assert shown_crashes() is None
    show_crash("x", "", ValueError("no"), Redactor())
    assert capfd.readouterr().err == ""


def test_crashes_are_written_to_the_stderr_of_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    with crashes_on_stderr():
        show_crash("x", "", ValueError("no"), Redactor())
    assert capfd.readouterr().err == "x\nValueError: no\n"


def test_show_crash_raises_nothing_for_an_exception_whose_attributes_raise() -> None:
    class HiddenError(Exception):
        def __getattribute__(self, name: str) -> object:
            raise ValueError(name)

    with crashes_on_stderr():
        show_crash("x", "", HiddenError(), Redactor())


def test_a_console_handler_shows_no_crash_that_was_shown_already(capfd: pytest.CaptureFixture[str]) -> None:
    stream = StringIO()
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("tests.crashes")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with crashes_on_stderr() as console, redacted_console(Redactor()):
            handler.stream = stream
            error, other = ValueError("first"), ValueError("second")
            console.show("x", "", error, Redactor(), "")
            logger.error("it failed", exc_info=error)
            logger.error("it failed", exc_info=other)
            console.show("x", "", other, Redactor(), "")
            logger.error("no exception")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue().count("first") == 0
    assert stream.getvalue().count("second") == 1
    assert "no exception" in stream.getvalue()
    assert capfd.readouterr().err.count("second") == 0
