"""Crashes on the console: once, within bounds, and never in the way."""

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


def test_what_is_shown_has_no_secret() -> None:
    shown = Shown()
    shown.console.show("x", "token=abcdefgh", ValueError("password=hunter2hunter2"), Redactor(), "")
    assert "hunter2" not in shown.texts[0]
    assert "abcdefgh" not in shown.texts[0]


def test_a_flood_is_shown_in_part_and_counted() -> None:
    shown = Shown()
    for _ in range(1000):
        shown.crash()
    assert shown.tracebacks == BURST_MAX
    assert len(shown.texts) == BURST_MAX + 1
    shown.console.close()
    assert shown.texts[-1] == f"crashes that were not shown here: {1000 - BURST_MAX}\n"


def test_over_a_minute_so_many_more_are_shown() -> None:
    shown = Shown()
    for _ in range(BURST_MAX + 5):
        shown.crash()
    shown.now = 60.0
    shown.crash()
    assert shown.texts[-2:-1] == ["crashes that were not shown here: 5\n"]
    for _ in range(100):
        shown.crash()
    assert shown.tracebacks == BURST_MAX + TRACEBACKS_PER_MINUTE


def test_what_is_held_is_reported_by_one_alone() -> None:
    shown = Shown()
    shown.console.hold()
    shown.crash()
    assert shown.texts == []
    assert "ValueError: no" in shown.console.take_held()
    shown.console.release()
    assert shown.texts == []


def test_nothing_is_shown_while_it_is_off(capfd: pytest.CaptureFixture[str]) -> None:
    assert shown_crashes() is None
    show_crash("x", "", ValueError("no"), Redactor())
    assert capfd.readouterr().err == ""


def test_it_writes_to_the_stderr_of_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    with crashes_on_stderr():
        show_crash("x", "", ValueError("no"), Redactor())
    assert capfd.readouterr().err == "x\nValueError: no\n"


def test_an_exception_that_raises_at_every_look_harms_nobody() -> None:
    class HiddenError(Exception):
        def __getattribute__(self, name: str) -> object:
            raise ValueError(name)

    with crashes_on_stderr():
        show_crash("x", "", HiddenError(), Redactor())


def test_a_handler_of_a_frameworks_own_shows_no_crash_that_was_shown(capfd: pytest.CaptureFixture[str]) -> None:
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
