"""The figures of all workers: sums that never fall, and workers that do not answer. Workers are simulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.unit.supervisor.master.test_master import Script, mastering, script
from umbel.admin.page import status_page
from umbel.cli.instance.ctl import _status
from umbel.observe.figures import ProcessFigures, Sums, add
from umbel.supervisor.control import messages
from umbel.supervisor.control.admin_source import MasterSource
from umbel.supervisor.control.figures import ANSWER_S, all_figures
from umbel.supervisor.master.exit_status import Exit, ExitClass
from umbel.supervisor.master.master import Master
from umbel.supervisor.master.process import Worker

__all__ = ["script"]
ANSWERS = "umbel_answers_total"


def figures(worker: Worker, answers: int) -> ProcessFigures:
    values: Any = {ANSWERS: [(("/r", "complete"), answers)], "umbel_in_flight": [((), 1)]}
    return ProcessFigures(process=str(worker.slot), pid=1, values=values)


async def sums(master: Master) -> Sums:
    found: Sums = {}
    for each in await all_figures(master):
        add(found, each.values)
    return found


class Counting:
    """What the simulated workers count and whether they answer."""

    def __init__(self) -> None:
        self.counts: dict[Worker, int] = {}
        self.silent = False
        self.master: Master


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Workers that answer each query for figures with ``counts``."""
    state = Counting()

    def send(self: Worker, message: messages.MasterMessage) -> None:
        if isinstance(message, messages.FiguresQuery) and not state.silent:
            answer = messages.Figures(query=message.query, figures=figures(self, state.counts[self]))
            state.master.on_worker_message(state.master.slots[self.slot], self, answer)

    monkeypatch.setattr(Worker, "send", send)
    yield state


async def test_figures_of_all_workers_are_added(script: Script, counting: Counting, autojump_clock: object) -> None:
    async with mastering(2) as (master, _):
        await trio.sleep(1)
        counting.master, counting.counts = master, dict(zip(master.workers, (3, 4), strict=True))
        found = await sums(master)
        assert found[ANSWERS] == {("/r", "complete"): 7}
        assert found["umbel_in_flight"] == {(): 2}
        assert found["umbel_workers"] == {("starting",): 0, ("serving",): 2, ("draining",): 0, ("silent",): 0}
        assert found["umbel_worker_stale"] == {("1",): 0, ("2",): 0}


async def test_a_silent_worker_counts_with_its_last_figures_after_half_a_second(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        counting.master, counting.counts = master, {master.workers[0]: 3}
        await sums(master)
        counting.silent = True
        began = trio.current_time()
        found = await sums(master)
        assert trio.current_time() - began == pytest.approx(ANSWER_S)
        assert found[ANSWERS] == {("/r", "complete"): 3}
        assert found["umbel_worker_stale"] == {("1",): 1}


async def test_the_highest_lateness_of_the_last_minute_is_seen_after_later_heartbeats(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        (worker,) = master.workers
        counting.master, counting.counts = master, {worker: 3}
        for lag_ms in (600.0, 1.0):
            worker.take_heartbeat(
                messages.Heartbeat(lag_ms=lag_ms, inflight=0, tasks=1, rss=1, connections=0, requests=0)
            )
        lags = []
        for seconds in (0, 59, 2):
            await trio.sleep(seconds)
            lags.append((await sums(master))["umbel_loop_lag_seconds"])
        assert lags == [{("1",): 0.6}, {("1",): 0.6}, {("1",): 0.0}]


async def test_counters_of_a_dead_worker_stay_and_its_gauges_go(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        (worker,) = master.workers
        counting.master, counting.counts = master, {worker: 3}
        await sums(master)
        master.on_worker_exit(master.slots[1], worker, Exit(ExitClass.SIGNAL, -9))
        counting.silent = True
        found = await sums(master)
        assert found[ANSWERS] == {("/r", "complete"): 3}
        assert "umbel_in_flight" not in found
        restarts = found["umbel_worker_restarts_total"]
        assert {labels: count for labels, count in restarts.items() if count} == {("signal",): 1}
        assert {("crash",), ("oom",), ("hang",)} < set(restarts)  # at 0 from the start


async def test_the_keys_that_the_master_evicts_are_added_to_those_of_the_workers(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        (worker,) = master.workers
        counting.master, counting.counts = master, {worker: 3}
        later = trio.current_time() + 1e9
        report = messages.LimitSpent(
            limit="l@1", number=1, spent=(("ta", 1.0, later), ("tb", 1.0, later)), keys_max=1, width=1.0, sync=0.1
        )
        master.on_worker_message(master.slots[1], worker, report)
        assert (await sums(master))["umbel_limit_evictions_total"] == {("l",): 1}


async def test_drained_workers_are_no_restarts(script: Script, counting: Counting, autojump_clock: object) -> None:
    async with mastering(1) as (master, _):
        await trio.sleep(1)
        master.figures.on_worker_exit(master.workers[0], Exit(ExitClass.DRAINED, 0))
        master.figures.on_worker_exit(master.workers[0], Exit(ExitClass.RECYCLE, 0))
        assert +master.figures.ends == {"recycle": 1}


async def test_a_master_whose_workers_all_wait_for_keys_is_not_ready(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(2) as (master, _):
        await trio.sleep(1)
        counting.master, source = master, MasterSource(master)
        beat = messages.Heartbeat(lag_ms=2, inflight=1, tasks=1, rss=1, connections=1, requests=1, missing_keys=("k",))
        first, second = master.workers
        first.take_heartbeat(beat)
        assert source.readiness()[0]
        second.take_heartbeat(beat)
        ready, details = source.readiness()
        assert (ready, details["workers"]) == (False, {"ready": 2, "silent": 0, "without_keys": 2, "size": 2})
        assert (await source.status())["master"]["summary"] == "2 of 2 workers ready, 2 of them waiting for keys"


async def test_a_worker_whose_heartbeat_is_late_is_shown_as_silent(
    script: Script, counting: Counting, autojump_clock: object
) -> None:
    async with mastering(2) as (master, _):
        await trio.sleep(1)
        counting.master, counting.silent, first = master, True, master.workers[0]
        first.last_heartbeat = messages.Heartbeat(lag_ms=2, inflight=1, tasks=1, rss=1, connections=1, requests=1)
        first._heartbeat_at = trio.current_time() + 6  # The heartbeats of the first worker go on a little longer.
        await trio.sleep(4)
        source = MasterSource(master)
        assert source.readiness()[1]["workers"] == {"ready": 2, "silent": 1, "without_keys": 0, "size": 2}
        assert source.readiness()[0]
        shown = await source.status()
        assert shown["master"]["summary"] == "2 of 2 workers ready, 1 of them silent"
        assert [slot["workers"][0]["state"] for slot in shown["slots"]] == ["serving", "silent"]
        assert (await sums(master))["umbel_workers"][("silent",)] == 1
        await trio.sleep(3)
        assert not source.readiness()[0]  # No worker is left that would answer.
        shown = await source.status()
        row = _status(shown).splitlines()[-2].split()
        age = round(1000 * shown["slots"][0]["workers"][0]["beat_age"])
        assert (row[1], row[-5:-3]) == ("silent", [f"{age}", "ms"])
        page = status_page(shown).decode()
        assert "<td>silent</td>" in page
        assert f"<td>{age / 1000:.1f}</td>" in page
        first.draining = True
        assert first.statistics().state == "draining"
