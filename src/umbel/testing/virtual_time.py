"""Virtual time: what the clock of a test must be, and that it stands still while threads work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio.testing import MockClock, active_thread_count

from ..core.errors import UmbelError


def virtual_clock() -> MockClock:
    """The clock of the running trio program.

    Raises:
        UmbelError: there is no trio program, or its clock is not a ``MockClock``.
    """
    if trio.lowlevel.in_trio_run() and isinstance(clock := trio.lowlevel.current_clock(), MockClock):
        return clock
    raise UmbelError(
        "umbel.testing.gateway runs in trio on its virtual clock, and under asyncio it cannot run: use the fixture "
        "umbel_gateway, pytest-trio's autojump_clock, or trio.run(…, clock=MockClock(autojump_threshold=0)) with the "
        "MockClock of trio.testing"
    )


@contextmanager
def threads_hold_the_clock(clock: MockClock) -> Iterator[None]:
    """Context manager: ``clock`` does not jump by itself while threads work that tasks wait for.

    Otherwise it would jump to the next deadline while a thread decodes a large body, because every task waits then.
    """
    instrument = _ThreadInstrument(clock)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)
        clock.autojump_threshold = instrument.threshold


class _ThreadInstrument(trio.abc.Instrument):
    """Switches the clock's jumps off and on. The number of threads changes only in steps of tasks."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        self._held = False
        self.threshold = clock.autojump_threshold
        """The threshold of the test."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Hold the clock, or let it go."""
        held = active_thread_count() > 0
        if held is not self._held:
            self._held = held
            self._clock.autojump_threshold = math.inf if held else self.threshold
