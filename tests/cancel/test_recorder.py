"""Cancels of the recorder at each checkpoint: every record is in the sinks, and nothing is left open."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.support.checkpoints import for_every_checkpoint
from tests.support.logs.event_factories import call_ended, log_message, request_ended
from tests.support.logs.sinks import MemoryLog
from umbel.core.events import Event

EVENTS: tuple[Event, ...] = (
    request_ended(),
    call_ended(),
    log_message(level="error"),
    request_ended(500),
    log_message(),
)


async def test_a_cancel_at_any_checkpoint_loses_no_record_and_leaves_nothing_open(autojump_clock: MockClock) -> None:
    log: MemoryLog | None = None
    recorded: list[Event] = []

    async def operation() -> None:
        nonlocal log
        log = MemoryLog()
        recorded.clear()
        async with log.open(flush_every=0.01) as recorder:
            for event in EVENTS:
                recorder.record(event)
                recorded.append(event)
                await trio.sleep(0.005)

    def check() -> None:
        if log is None:
            return  # cancelled before it began
        written = [*log.access.events, *log.calls.events, *log.app.events]
        if recorded:
            assert len(written) == len(recorded) + 1
            assert log.app.events[-1] == "log.closed"
        assert log.access.closed
        assert log.calls.closed
        assert log.app.closed

    # At least one checkpoint per event, and those of the writer and of the opening.
    assert await for_every_checkpoint(operation, check) > 3 * len(EVENTS)


async def test_a_cancel_at_the_end_does_not_cut_the_drain_short(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    log.access.seconds_per_write = 0.5

    with trio.CancelScope() as scope:
        async with log.open(flush_every=60) as recorder:
            for _ in range(5):
                recorder.record(request_ended())
            scope.cancel(reason="shutdown")

    assert log.access.events == ["request.end"] * 5
