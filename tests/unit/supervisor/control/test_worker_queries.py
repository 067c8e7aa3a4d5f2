"""Queries to workers: each answer belongs to the query whose number it repeats."""

from __future__ import annotations

import os

import trio
from trio.testing import wait_all_tasks_blocked

from umbel.observe.tree.nodes import ProcessTree
from umbel.supervisor.control import messages
from umbel.supervisor.control.worker_queries import WorkerQueries
from umbel.supervisor.master.console_output import ConsoleOutput
from umbel.supervisor.master.options import Options
from umbel.supervisor.master.process import Worker, WorkerSpec

START = messages.Start(slot=1, generation=1, app=None, config=None, heartbeat_every=1, orphan_grace=1)


def silent_worker() -> Worker:
    return Worker(WorkerSpec(START, ""), Options(), ConsoleOutput(os.open(os.devnull, os.O_WRONLY)))


async def test_a_late_answer_does_not_confirm_the_next_query(autojump_clock: object) -> None:
    queries, worker = WorkerQueries(), silent_worker()
    sent: list[messages.Message] = []
    worker.send = sent.append  # type: ignore[method-assign]
    assert await queries.ask([worker], messages.ReopenLogs(), messages.LogsReopened, 1.0) == {}
    results: list[dict[Worker, messages.LogsReopened]] = []

    async def ask_again() -> None:
        results.append(await queries.ask([worker], messages.ReopenLogs(), messages.LogsReopened, 1.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_again)
        await wait_all_tasks_blocked()
        queries.on_message(worker, messages.LogsReopened(query=1))  # The first query's, which has ended.
        await trio.sleep(0.5)
        assert not results
        queries.on_message(worker, messages.LogsReopened(query=2))
    assert results == [{worker: messages.LogsReopened(query=2)}]
    assert sent == [messages.ReopenLogs(query=1), messages.ReopenLogs(query=2)]
    assert queries.pending == 0


async def test_answers_to_simultaneous_queries_come_in_any_order(autojump_clock: object) -> None:
    queries, worker = WorkerQueries(), silent_worker()
    names: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers = await queries.ask([worker], messages.TreeQuery(), messages.Tree, 1.0)
        names[number] = answers[worker].tree.process

    async with trio.open_nursery() as nursery:
        for number in (1, 2):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
        queries.on_message(worker, messages.Tree(query=2, tree=ProcessTree(process="second", pid=1)))
        queries.on_message(worker, messages.Tree(query=1, tree=ProcessTree(process="first", pid=1)))
    assert names == {1: "first", 2: "second"}
    assert queries.pending == 0
