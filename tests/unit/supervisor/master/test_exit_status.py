"""The classification of a worker's end, and its text."""

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
def test_a_status_that_the_master_did_not_cause_has_the_class_of_the_status(status: int, text: str) -> None:
    assert str(classify(status)) == text


def test_a_worker_killed_by_the_master_has_the_class_of_the_masters_reason() -> None:
    assert str(classify(-signal.SIGABRT, ExitClass.HANG)) == "hang (SIGABRT)"
    assert str(classify(-signal.SIGKILL, ExitClass.OVERDUE, requested=ExitClass.DRAINED)) == "overdue (SIGKILL)"


def test_an_exit_before_the_masters_signal_has_the_class_of_its_status() -> None:
    assert classify(3, ExitClass.LATE).kind is ExitClass.BOOT
    assert classify(0, ExitClass.OVERDUE, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED


def test_a_requested_end_has_its_class_only_if_the_status_is_a_success() -> None:
    assert classify(0, requested=ExitClass.RECYCLE).kind is ExitClass.RECYCLE
    assert classify(-signal.SIGTERM, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED
    assert classify(1, requested=ExitClass.DRAINED).kind is ExitClass.CRASH


def test_sigkill_while_the_oom_killer_was_active_has_the_class_oom() -> None:
    assert classify(-signal.SIGKILL, oom=True).kind is ExitClass.OOM
    assert classify(-signal.SIGTERM, oom=True).kind is ExitClass.SIGNAL
