"""What the labs show, beyond their figures."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import trio

from tests.process.labs.conftest import Ran


async def test_siblings_of_a_failure_run_on_with_gather_only(ran: Ran) -> None:
    runs = await ran(1)
    for run in runs.values():
        assert [note.text for note in run.notes] == ["502 offers is down"]
        assert run.named("page")[0].end == 1
    assert {bar.how for bar in runs["gather"].leaves()} == {"failed", "running"}
    for column in ("taskgroup", "trio"):
        assert {(bar.how, bar.end) for bar in runs[column].leaves()} == {("failed", 1.0), ("cancelled", 1.0)}
    # Only trio says why.
    assert {bar.reason for bar in runs["taskgroup"].leaves() if bar.how == "cancelled"} == {
        "CancelledError, which has no reason"
    }
    assert all("offers is down" in bar.reason for bar in runs["trio"].leaves())


async def test_a_swallowed_cancel_ends_a_loop_in_trio_only(ran: Ran) -> None:
    runs = await ran(7)
    for column in ("gather", "taskgroup"):
        assert [note.text for note in runs[column].notes] == ["caught CancelledError"]
        # It waits for the poller, which goes on with its rounds.
        assert runs[column].named("program")[0].end is None
        assert [wait.at for wait in runs[column].named("poller")[0].waits if wait.at > 2.5]
    assert [note.text for note in runs["trio"].notes] == ["caught Cancelled", "the program is over"]
    assert runs["trio"].named("program")[0].end == 2.5


async def test_a_poller_whose_pause_is_in_its_try_turns_without_a_wait_in_trio() -> None:
    """What the explanation of lab 7 says."""
    began, rounds = trio.current_time(), 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while rounds < 100:
            try:
                await trio.sleep(10)
            except BaseException:  # noqa: BLE001 - what is shown
                rounds += 1
    assert trio.current_time() - began < 10


async def test_a_yield_within_a_block_of_tasks_cancels_the_consumer(ran: Ran) -> None:
    runs = await ran(8)
    for column in ("taskgroup", "trio"):
        assert [(bar.how, bar.end) for bar in runs[column].named("save")] == [("cancelled", 2.5)]
        assert not runs[column].noted("502")
    assert [bar.reason for bar in runs["taskgroup"].named("save")] == ["CancelledError, which has no reason"]
    assert [note.text for note in runs["taskgroup"].notes] == [
        "asyncio logs: Task exception was never retrieved: BaseExceptionGroup of ConnectionError: news is down,"
        " GeneratorExit"
    ]
    assert "news is down" in runs["trio"].named("save")[0].reason
    assert [note.text for note in runs["trio"].notes] == ["trio raises RuntimeError: Nursery stack corrupted"]
    assert [note.text for note in runs["gather"].notes] == ["saved prices"]
    assert [note.text for note in runs["channel"].notes] == ["502: news is down"]


async def test_aclosing_brings_the_error_together_with_a_generator_exit() -> None:
    """What the explanation of lab 8 says."""

    async def fail() -> None:
        raise ConnectionError

    async def values() -> AsyncGenerator[int, None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield 1

    with pytest.raises(BaseExceptionGroup) as caught:
        async with aclosing(values()) as each:
            async for _ in each:
                await trio.sleep_forever()
    assert {type(error) for error in caught.value.exceptions} == {ConnectionError, GeneratorExit}
