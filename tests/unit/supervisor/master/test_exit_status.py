"""How a worker's end is told."""

from __future__ import annotations

import signal

import pytest

from umbel.supervisor.master.exit_status import ExitClass, classify


@pytest.mark.parametrize(
    ("status", "told"),
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
def test_a_status_nobody_caused_is_told_by_itself(status: int, told: str) -> None:
    assert str(classify(status)) == told


def test_a_signal_of_the_masters_is_told_with_its_reason() -> None:
    assert str(classify(-signal.SIGABRT, ExitClass.HANG)) == "hang (SIGABRT)"
    assert str(classify(-signal.SIGKILL, ExitClass.OVERDUE, requested=ExitClass.DRAINED)) == "overdue (SIGKILL)"


def test_an_end_that_came_before_the_masters_signal_keeps_its_own_class() -> None:
    assert classify(3, ExitClass.LATE).kind is ExitClass.BOOT
    assert classify(0, ExitClass.OVERDUE, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED


def test_an_end_that_was_asked_for_is_told_so_only_if_it_went_well() -> None:
    assert classify(0, requested=ExitClass.RECYCLE).kind is ExitClass.RECYCLE
    assert classify(-signal.SIGTERM, requested=ExitClass.DRAINED).kind is ExitClass.DRAINED
    assert classify(1, requested=ExitClass.DRAINED).kind is ExitClass.CRASH


def test_a_kill_while_the_kernel_was_killing_for_memory_is_told_as_that() -> None:
    assert classify(-signal.SIGKILL, oom=True).kind is ExitClass.OOM
    assert classify(-signal.SIGTERM, oom=True).kind is ExitClass.SIGNAL
