"""One limit for several simulated processes in virtual time: messages are late, lost and repeated, processes die."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umbel.policy.limits.gcra import Gcra
from umbel.policy.limits.gcra_sharing import Answer, MasterKey, Report, WorkerKey

SLACK = 0.01


@dataclass
class Faults:
    """What the simulated machine does to messages and processes."""

    way: float = 0.0
    """The longest way of a message, in seconds."""
    losses: int = 0
    """How many messages of one kind and worker may be lost one after the other."""
    repeats: bool = False
    deaths: tuple[float, ...] = ()
    restarts: tuple[float, ...] = ()
    """When the master is replaced by one that knows nothing."""


@dataclass
class Worker:
    number: int
    key: WorkerKey
    must_report: bool = False
    lost: dict[str, int] = field(default_factory=lambda: {"report": 0, "answer": 0})


class Machine:
    """A master and its workers, one key, and clients that send requests to random workers."""

    def __init__(self, seed: int, limit: Gcra, sync: float, processes: int, faults: Faults) -> None:
        self.random, self.limit, self.sync, self.faults = random.Random(seed), limit, sync, faults
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.master, self.numbers = MasterKey(), itertools.count(1)
        self.admitted = self.level = self.peak = 0.0
        self.workers: dict[int, Worker] = {}
        for _ in range(processes):
            self.start_worker()
        for time in faults.deaths:
            self.at(time, self.kill_one)
        for time in faults.restarts:
            self.at(time, self.restart_master)

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (time, next(self.order), action))

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            now, _, action = heapq.heappop(self.events)
            self.level = max(0.0, self.level - (now - self.now) * self.limit.rate)
            self.now = now
            action()

    def start_worker(self) -> None:
        worker = Worker(next(self.numbers), WorkerKey(epoch=1))
        self.workers[worker.number] = worker
        self.at(self.now + self.random.uniform(0, self.sync), lambda: self.report(worker))

    def kill_one(self) -> None:
        number = self.random.choice(list(self.workers))
        del self.workers[number]
        self.master.forget(number)
        self.start_worker()

    def restart_master(self) -> None:
        self.master = MasterKey()
        for worker in self.workers.values():
            worker.must_report = True

    def request(self, worker: Worker, cost: float) -> None:
        decision = self.limit.decide(worker.key.tat, self.now, cost)
        if decision.admitted:
            worker.key.spend(decision.tat, cost)
            self.admitted += cost
            self.level += cost
            self.peak = max(self.peak, self.level)

    def report(self, worker: Worker) -> None:
        if worker.number not in self.workers:
            return
        if worker.must_report or not worker.key.is_counted:
            report = worker.key.report()
            self.send(worker, "report", lambda: self.count(worker, report))
        self.at(self.now + self.sync, lambda: self.report(worker))

    def count(self, worker: Worker, report: Report) -> None:
        if worker.number not in self.workers:
            return
        worker.must_report = False
        self.master.count(worker.number, report, self.limit.increment)
        for number in self.master.workers:
            self.answer(self.workers[number], self.master.answer(number))

    def answer(self, worker: Worker, answer: Answer) -> None:
        self.send(worker, "answer", lambda: worker.key.adopt(answer, self.limit.increment))

    def send(self, worker: Worker, kind: str, deliver: Callable[[], None]) -> None:
        if worker.lost[kind] < self.faults.losses and self.random.random() < 0.5:
            worker.lost[kind] += 1
            return
        worker.lost[kind] = 0
        self.at(self.now + self.random.uniform(0, self.faults.way), deliver)
        if self.faults.repeats and self.random.random() < 0.3:
            self.at(self.now + self.random.uniform(0, 20 * (self.sync + self.faults.way)), deliver)

    def saturate(self, until: float, every: float) -> None:
        """Send more requests than the limit admits to every worker."""
        steps = int((until - self.now) / every)
        for step in range(steps):
            self.at(self.now + step * every, lambda: [self.request(each, 1.0) for each in list(self.workers.values())])
        self.run(until)

    def vary(self, until: float) -> None:
        """Send requests of several costs to some of the workers, with pauses of every length."""
        time = self.now
        while time < until:
            count, pause = self.random.randint(1, 60), self.random.choice([0.0, 0.01, 0.3, 1.0, 5.0])
            for _ in range(count):
                time += self.random.uniform(0, pause) * self.limit.increment
                cost = self.random.choice([0.0, 0.5, 1.0, 1.0, 1.0, 2.0])
                place = self.random.random()
                self.at(time, lambda cost=cost, place=place: self.request(self.some(place), cost))
            time += self.random.choice([0.0, self.sync, 30 * self.limit.increment])
        self.run(until)

    def some(self, place: float) -> Worker:
        workers = list(self.workers.values())
        return workers[int(place * len(workers))]


def age(sync: float, faults: Faults) -> float:
    """The longest age of what a worker knows about the others, ``delay`` of the bound."""
    if not faults.losses and not faults.restarts:
        return sync + 2 * faults.way
    known = (faults.losses + 1) * sync + faults.way
    return known + (faults.losses + 1) * (known + faults.way) + (2 * known if faults.restarts else 0)


def bound(limit: Gcra, processes: int, delay: float) -> float:
    """The most units that may be admitted at once, in terms of a bucket that leaks at the rate."""
    return limit.burst + (processes - 1) * (limit.burst + limit.rate * delay) + SLACK


LIMITS = st.builds(Gcra, st.sampled_from([0.5, 10.0, 300.0]), st.sampled_from([1, 3, 20]))
SEEDS = st.integers(0, 2**32)
PROCESSES = st.integers(1, 4)
SYNCS = st.sampled_from([0.3, 2.0, 15.0])
"""In increments of the limit."""
WAYS = st.sampled_from([0.0, 0.01, 1.0])
"""In times of ``sync``."""
SIMULATED = settings(deadline=None, max_examples=50)


@SIMULATED
@given(seed=SEEDS, limit=LIMITS, processes=PROCESSES, sync=SYNCS, way=WAYS, repeats=st.booleans())
def test_no_window_exceeds_the_bound_with_late_and_repeated_messages(
    seed: int, limit: Gcra, processes: int, sync: float, way: float, repeats: bool
) -> None:
    sync *= limit.increment
    faults = Faults(way * sync, repeats=repeats)
    machine = Machine(seed, limit, sync, processes, faults)
    machine.vary(200 * limit.increment)
    assert machine.peak <= bound(limit, processes, age(sync, faults))


@SIMULATED
@given(seed=SEEDS, limit=LIMITS, processes=PROCESSES, sync=SYNCS, way=WAYS, losses=st.integers(0, 3))
@example(seed=0, limit=Gcra(10.0, 1), processes=4, sync=2.0, way=1.0, losses=3)
def test_no_window_exceeds_the_bound_with_losses_deaths_and_restarts(
    seed: int, limit: Gcra, processes: int, sync: float, way: float, losses: int
) -> None:
    until = 200 * limit.increment
    chance = random.Random(seed)
    deaths = tuple(chance.uniform(0, until) for _ in range(chance.randint(0, 3)))
    restarts = tuple(chance.uniform(0, until) for _ in range(chance.randint(0, 2)))
    sync *= limit.increment
    faults = Faults(way * sync, losses, True, deaths, restarts)
    machine = Machine(seed, limit, sync, processes, faults)
    machine.vary(until)
    assert machine.peak <= bound(limit, processes + len(deaths), age(sync, faults))


@SIMULATED
@given(seed=SEEDS, limit=LIMITS, processes=PROCESSES, sync=SYNCS, way=WAYS, losses=st.integers(0, 2))
def test_the_long_run_rate_is_exact_while_every_worker_is_saturated(
    seed: int, limit: Gcra, processes: int, sync: float, way: float, losses: int
) -> None:
    sync *= limit.increment
    faults = Faults(way * sync, losses, repeats=True)
    machine = Machine(seed, limit, sync, processes, faults)
    until = 300 * limit.increment
    machine.saturate(until, limit.increment / 5)
    assert machine.admitted <= limit.rate * until + bound(limit, processes, age(sync, faults))
    assert machine.admitted >= limit.rate * until - 1


def test_a_single_process_never_exceeds_its_own_limit_whatever_happens() -> None:
    limit = Gcra(10.0, 5)
    faults = Faults(0.1, 3, repeats=True, restarts=(3.0, 7.0, 11.0))
    for seed in range(20):
        machine = Machine(seed, limit, 0.1, 1, faults)
        machine.vary(20.0)
        assert machine.peak <= limit.burst + SLACK


def test_without_messages_the_processes_would_exceed_the_bound() -> None:
    """The simulation can tell: this is what the bound excludes."""
    limit = Gcra(10.0, 5)
    machine = Machine(1, limit, 0.1, 4, Faults(losses=10**9))
    machine.random.random = lambda: 0.0  # type: ignore[method-assign]  # Every message is lost.
    machine.saturate(60.0, 0.01)
    assert machine.admitted > limit.rate * 60 + bound(limit, 4, 0.1)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_report_of_an_evicted_key_counts_once_in_either_order(epoch: int) -> None:
    master = MasterKey()
    old, new = Report(1, 5.0, 0.0, 5.0), Report(2, 3.0, 0.0, 3.0)
    for report in (old, new, old, new) if epoch == 1 else (new, old, new, old):
        master.count(7, report, 1.0)
    assert master.tat == (8.0 if epoch == 1 else 3.0)
