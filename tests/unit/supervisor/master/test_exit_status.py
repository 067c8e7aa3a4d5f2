"""How a worker's end is classified and shown."""

from __future__ import annotations

import signal

import pytest

from umbel.supervisor.master.exit_status import ExitClass, classify


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "drained (exit status 0)"),
        (1, "crash (exit status 1)"),
        (3, "boot failure (exit status 3)"),
        (4, "load failure (exit status 4)"),
        (70, "orphan (exit status 70)"),
        (78, "configuration (exit status 78)"),
        (-signal.SIGSEGV, "signal (SIGSEGV)"),
        (-signal.SIGKILL, "signal (SIGKILL)"),
        (-(signal.SIGRTMIN + 3), f"signal (signal {signal.SIGRTMIN + 3})"),
    ],
)
def test_a_status_without_a_known_cause_is_reported_as_it_is(status: int, text: str) -> None:
    assert str(classify(status)) == text


def test_a_signal_that_the_master_sent_is_reported_with_its_reason() -> None:
    assert str(classify(-signal.SIGABRT, ExitClass.HANG)) == "hang (SIGABRT)"
    assert str(classify(-signal.SIGKILL, ExitClass.OVERDUE, requested=ExitClass.DRAINED)) == "overdue (SIGKILL)"


def test_an_end_that_came_before_the_masters_signal_keeps_its_own_class() -> None:
    assert classify(3, ExitClass.LATE).kind is ExitClass.BOOT
    assert classify(0, ExitClass.OVERDUE, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED


def test_a_requested_end_is_reported_as_such_only_if_it_succeeded() -> None:
    assert classify(0, requested=ExitClass.RECYCLE).kind is ExitClass.RECYCLE
    assert classify(-signal.SIGTERM, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED
    assert classify(1, requested=ExitClass.DRAINED).kind is ExitClass.CRASH


def test_a_kill_while_the_oom_killer_was_active_is_reported_as_oom() -> None:
    assert classify(-signal.SIGKILL, oom=True).kind is ExitClass.OOM
    assert classify(-signal.SIGTERM, oom=True).kind is ExitClass.SIGNAL
