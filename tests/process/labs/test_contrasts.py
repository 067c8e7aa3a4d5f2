"""What the labs show, beyond their figures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import trio
from trio.testing import MockClock

from tests.process.labs.conftest import Ran
from umbel.labs.model import TRIO, Deadline, lab_of

NO_REASON = "CancelledError, which has no reason"


async def test_siblings_of_a_failure_run_on_with_gather_only(ran: Ran) -> None:
    runs = await ran(1)
    for run in runs.values():
        assert [note.text for note in run.notes] == ["502 offers is down"]
        assert run.named("page")[0].end == 1
    calls = {key: [bar for bar in run.bars if bar.name != "page"] for key, run in runs.items()}
    assert {bar.how for bar in calls["gather"]} == {"failed", "running"}
    for column in ("taskgroup", "trio"):
        assert {(bar.how, bar.end) for bar in calls[column]} == {("failed", 1.0), ("cancelled", 1.0)}
    # Only trio says why.
    cancelled = {key: {bar.reason for bar in bars if bar.how == "cancelled"} for key, bars in calls.items()}
    assert cancelled["taskgroup"] == {NO_REASON}
    assert all("offers is down" in reason for reason in cancelled["trio"])


async def test_work_for_clients_that_left_goes_on_unless_somebody_watches(ran: Ran) -> None:
    runs = await ran(2)
    for run in runs.values():
        assert [(bar.how, bar.end) for bar in run.named("client")] == [("ok", 1.0)] * 20
        assert (len(run.named("page")), len(run.named("call"))) == (20, 100)
    for column in ("gather", "taskgroup"):
        assert {bar.how for bar in runs[column].bars if bar.name != "client"} == {"running"}
    worked = [bar for bar in runs["trio"].bars if bar.name != "client"]
    assert {(bar.how, bar.end, bar.reason) for bar in worked} == {
        ("cancelled", 1.0, "Cancelled: the client hung up"),
    }


async def test_only_the_first_error_leaves_gather_and_no_other_is_logged(ran: Ran) -> None:
    runs = await ran(3)
    for run in runs.values():
        assert sorted(bar.name for bar in run.bars if bar.how == "failed") == ["offers", "prices", "stock"]
    assert [note.text for note in runs["gather"].notes] == ["log: ConnectionError('offers is down')", "502"]
    for column in ("taskgroup", "trio"):
        assert [note.text for note in runs[column].notes] == [
            "log: ConnectionError('offers is down')",
            "log: KeyError('currency')",
            "log: ZeroDivisionError('no shops')",
            "502",
        ]


async def test_a_task_that_nobody_keeps_is_destroyed_while_it_waits(ran: Ran) -> None:
    runs = await ran(4)
    assert [(bar.how, bar.end) for bar in runs["gather"].named("mailer")] == [("destroyed", 3.0)]
    assert [note.text for note in runs["gather"].notes] == [
        "mail: order 1",
        "mail: order 2",
        "asyncio logs: Task was destroyed but it is pending!",
    ]
    for column in ("taskgroup", "trio"):
        assert [bar.how for bar in runs[column].named("mailer")] == ["running"]


async def test_one_deadline_ends_a_tree_that_timeouts_of_reads_do_not(ran: Ran) -> None:
    runs = await ran(5)
    assert {bar.name for bar in runs["gather"].bars if bar.how == "running"} == {"page", "orders", "prices"}
    assert not runs["gather"].notes
    for column in ("taskgroup", "trio"):
        ended = {bar.name: bar.end for bar in runs[column].bars if bar.how == "cancelled"}
        assert ended == {"page": 1.0, "orders": 1.0, "prices": 1.0}
        assert [(note.at, note.text) for note in runs[column].notes] == [(1.0, "504")]
        assert runs[column].deadlines == [Deadline(0.0, 1.0, 1.0)]
    # The timeout of each read moves on with the reads.
    of_reads = [each for each in runs["gather"].deadlines if each.start >= 1]
    assert all(each.at == pytest.approx(each.start + 1) for each in of_reads)
    assert not [each for each in of_reads if each.gone is not None and each.passed]
    assert len(of_reads) > 10


async def test_cleanup_after_a_cancel_waits_in_asyncio_only(ran: Ran) -> None:
    runs = await ran(6)
    for column in ("gather", "taskgroup"):
        assert [(bar.how, bar.start, bar.end) for bar in runs[column].named("goodbye")] == [("ok", 1.0, 4.0)]
    assert [(bar.how, bar.start, bar.end) for bar in runs["trio"].named("goodbye")] == [("cancelled", 1.0, 1.0)]
    assert {key: [(note.at, note.text) for note in run.notes] for key, run in runs.items()} == {
        "gather": [(4.0, "504")],
        "taskgroup": [(4.0, "504")],
        "trio": [(1.0, "504")],
    }


def test_only_a_second_cancel_ends_cleanup_in_asyncio() -> None:
    """What the explanation of lab 6 says."""
    steps: list[str] = []

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                steps.append("goodbye")
                await asyncio.sleep(0)
                steps.append("still there")
                await asyncio.Event().wait()
            finally:
                steps.append("over")

    async def main() -> None:
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            steps.append("done" if task.done() else "not done")

    asyncio.run(main())
    assert steps == ["goodbye", "still there", "not done", "over", "done"]


async def test_a_shield_with_a_deadline_bounds_the_cleanup_in_trio(autojump_clock: MockClock) -> None:
    """What the explanation of lab 6 says."""
    began = trio.current_time()
    with trio.move_on_after(1):
        try:
            await trio.sleep(8)
        finally:
            with trio.move_on_after(0.5, shield=True):
                await trio.sleep(3)
    assert trio.current_time() - began == 1.5


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
    assert [bar.reason for bar in runs["taskgroup"].named("save")] == [NO_REASON]
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


async def test_the_pool_of_httpx_keeps_connections_of_cancelled_requests(ran: Ran) -> None:
    runs = await ran(9)
    for column in ("gather", "taskgroup", "trio"):
        assert [note.text for note in runs[column].notes] == [
            "the pool: 0 requests, 2 of 2 connections in use",
            "502 PoolTimeout",
        ]
        assert [(bar.how, bar.end) for bar in runs[column].named("one that waits")] == [("failed", 8.0)]
    assert [note.text for note in runs["umbel"].notes] == ["the pool: 0 requests, 0 of 2 connections in use", "200 ok"]
    assert [(bar.how, bar.end) for bar in runs["umbel"].named("one that waits")] == [("ok", 3.5)]


async def test_a_call_that_blocks_stalls_all_three_and_the_watchdog_names_its_line(ran: Ran) -> None:
    lab, runs = lab_of(10), await ran(10)
    for run in runs.values():
        (report,) = run.named("report")
        assert report.end is not None
        meanwhile = [bar for bar in run.named("page") if bar.start >= report.start and (bar.end or 4) <= report.end]
        assert bool(meanwhile) is (run.column == "thread")
    blocking = next(
        number for number, line in enumerate(lab.source(TRIO).splitlines(), 1) if line == "    time.sleep(2)"
    )
    (said,) = runs["trio"].notes
    assert said.text.startswith("watchdog: the event loop was blocked for ")
    assert said.text.endswith(f": with_trio.py, line {blocking}, in render")


async def test_hedges_that_lose_run_on_with_create_task_and_a_budget_bounds_them(ran: Ran) -> None:
    runs = await ran(11)
    for run in runs.values():
        assert sorted(bar.end or 0 for bar in run.named("request")) == [1.0] * 4 + [2.0] * 4
        assert all((bar.how, bar.end) in (("ok", 1.0), ("ok", 2.0)) for bar in run.named("call 1"))
    # The time to the next hedge is no deadline.
    assert [run.deadlines for run in (runs["gather"], runs["taskgroup"])] == [[], []]
    lost = [[bar for bar in run.bars if bar.name in ("call 2", "call 3")] for run in runs.values()]
    assert [len(bars) for bars in lost] == [16, 16, 16, 3]
    assert {bar.how for bar in lost[0]} == {"ok"}
    assert {bar.how for bars in lost[1:] for bar in bars} == {"cancelled"}
    assert {bar.reason for bars in lost[2:] for bar in bars} == {"Cancelled: another call was faster"}


async def test_a_stop_loses_log_lines_in_tasks_that_nobody_waits_for(ran: Ran) -> None:
    runs = await ran(12)
    for run in runs.values():
        assert [(bar.how, bar.end) for bar in run.named("report")] == [("ok", 5.5)]
        assert [(bar.how, bar.end) for bar in run.named("slow reader")] == [("cancelled", 6.0)]
    logged = {
        column: {bar.name: (bar.how, bar.end) for bar in run.bars if bar.name.startswith("log ")}
        for column, run in runs.items()
    }
    assert logged["gather"] == {
        "log page": ("ok", 2.0),
        "log report": ("cancelled", 6.0),
        "log slow reader": ("cancelled", 6.0),
    }
    for column in ("taskgroup", "trio"):
        assert logged[column] == {
            "log page": ("ok", 2.0),
            "log report": ("ok", 6.5),
            "log slow reader": ("ok", 7.5),
        }
        assert runs[column].notes[-1].text == "the server has stopped"
    for run in runs.values():
        [server] = run.named("server")
        assert (server.how, server.end) == ("ok", 6.0)
        assert {bar.parent for bar in run.bars if bar.name in ("page", "report", "slow reader")} == {server.id}
        assert [note.at for note in run.noted("told to stop")] == [3.0]
        assert run.deadlines == [Deadline(3.0, 6.0, 6.0)]
