"""One limit for several simulated processes in virtual time: messages are late and refused, processes end.

The processes have the limiters, reports and messages of real ones; only the channels between them are simulated.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from umbel.config.schema.access.limits import parse_request_rate
from umbel.config.schema.sections import Limit
from umbel.limits.limiter import Limiter
from umbel.supervisor.control import messages
from umbel.supervisor.control.common_limits import CommonLimits
from umbel.supervisor.worker.limit_reports import LimitReports

SLACK = 0.01


@dataclass
class Faults:
    """What the simulated machine does to messages and processes."""

    way: float = 0.0
    """The longest way of a message, in seconds."""
    refusals: int = 0
    """How many messages of one channel may be refused one after the other."""
    deaths: tuple[float, ...] = ()
    """When a worker is killed, with all messages that are under way."""
    restarts: tuple[float, ...] = ()
    """When the master ends with its workers, and another one begins with as many."""


class Link:
    """One direction of a channel: keeps the order, delays messages, and refuses some."""

    def __init__(self, machine: Machine, decode: Callable[[bytes], Any], deliver: Callable[[Any], object]) -> None:
        self.machine, self.decode, self.deliver = machine, decode, deliver
        self.refused, self.latest = 0, 0.0
        self.queue, self.arrivals = trio.open_memory_channel[tuple[float, bytes]](10**6)

    has_room = True

    def send(self, message: messages.Message) -> bool:
        faults, chance = self.machine.faults, self.machine.random
        if self.refused < faults.refusals and chance.random() < 0.5:
            self.refused += 1
            return False
        self.refused = 0
        self.latest = max(self.latest, trio.current_time() + chance.uniform(0, faults.way))
        self.queue.send_nowait((self.latest, messages.encode(message)))
        return True

    async def run(self) -> None:
        async for at, line in self.arrivals:
            await trio.sleep_until(at)
            self.deliver(self.decode(line))


class Process:
    """A worker; the master knows it by ``send`` and ``has_room``."""

    has_room = True

    def __init__(self, machine: Machine) -> None:
        self.limiter, self.machine = Limiter("l", machine.section), machine
        master = machine.master
        self.up = Link(machine, messages.decode_worker_message, lambda message: master.on_message(self, message))
        self.down = Link(machine, messages.decode_master_message, lambda message: self.reports.on_tats(message))
        self.send = self.down.send
        self.reports = LimitReports(self.up, trio.current_time)  # type: ignore[arg-type]
        self.scope = trio.CancelScope()
        self.serves = False
        master.on_message(self, messages.Ready(limits=(self.limiter.identity,)))  # type: ignore[arg-type]

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.up.run)
                nursery.start_soon(self.down.run)
                await nursery.start(self.reports.run)
                with self.reports.share([self.limiter]):
                    self.serves = True
                    await trio.sleep_forever()

    def kill(self) -> None:
        self.scope.cancel()
        self.machine.master.on_worker_exit(self)  # type: ignore[arg-type]


class Machine:
    """A master and its workers, one key, and clients that send requests to random workers."""

    def __init__(self, nursery: trio.Nursery, seed: int, section: Limit, processes: int, faults: Faults) -> None:
        self.random, self.section, self.faults, self.nursery = random.Random(seed), section, faults, nursery
        self.rate = parse_request_rate(section.rate).per_second
        self.admitted = self.level = self.peak = 0.0
        self.latest = trio.current_time()
        self.processes = processes
        self.start()
        for time in faults.deaths:
            nursery.start_soon(self.at, time, self.kill_one)
        for time in faults.restarts:
            nursery.start_soon(self.at, time, self.restart)

    def start(self) -> None:
        self.master, self.master_scope = CommonLimits(trio.current_time), trio.CancelScope()
        self.nursery.start_soon(self.run_master, self.master, self.master_scope)
        self.workers: list[Process] = []
        for _ in range(self.processes):
            self.start_worker()

    async def run_master(self, master: CommonLimits, scope: trio.CancelScope) -> None:
        with scope:
            await master.run()

    def start_worker(self) -> None:
        worker = Process(self)
        self.workers.append(worker)
        self.nursery.start_soon(worker.run)

    async def at(self, time: float, action: Callable[[], None]) -> None:
        await trio.sleep(time)
        action()

    def kill_one(self) -> None:
        worker = self.random.choice(self.workers)
        self.workers.remove(worker)
        worker.kill()
        self.start_worker()

    def restart(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.master_scope.cancel()
        self.start()

    def request(self, worker: Process, cost: float) -> None:
        if not worker.serves:
            return
        now = trio.current_time()
        self.level = max(0.0, self.level - (now - self.latest) * self.rate)
        self.latest = now
        key, decision = worker.limiter.decide({"query": {"cost": cost}}, now)
        if decision.admitted:
            worker.limiter.spend(key, decision, now)
            self.admitted += cost
            self.level += cost
            self.peak = max(self.peak, self.level)

    async def saturate(self, seconds: float, every: float) -> None:
        """Send more requests than the limit admits to every worker."""
        for _ in range(int(seconds / every)):
            for worker in self.workers:
                self.request(worker, 1.0)
            await trio.sleep(every)

    async def vary(self, seconds: float) -> None:
        """Send requests of several costs to some of the workers, with pauses of every length."""
        chance, until = self.random, trio.current_time() + seconds
        while trio.current_time() < until:
            count, pause = chance.randint(1, 60), chance.choice([0.0, 0.01, 0.3, 1.0, 5.0])
            for _ in range(count):
                await trio.sleep(chance.uniform(0, pause) / self.rate)
                self.request(chance.choice(self.workers), chance.choice([0.0, 0.5, 1.0, 1.0, 1.0, 2.0]))
            await trio.sleep(chance.choice([0.0, self.section.sync, 30 / self.rate]))


Test = Callable[[Machine], Awaitable[None]]


def simulated(test: Test, seed: int, section: Limit, processes: int, faults: Faults) -> Machine:
    """Run a test on a machine in virtual time; return the machine."""

    async def run() -> Machine:
        async with trio.open_nursery() as nursery:
            machine = Machine(nursery, seed, section, processes, faults)
            await wait_all_tasks_blocked()
            await test(machine)
            nursery.cancel_scope.cancel()
        return machine

    return trio.run(run, clock=MockClock(autojump_threshold=0))


def bound(section: Limit, processes: int, faults: Faults) -> float:
    """The most units that may be admitted at once, in terms of a bucket that leaks at the rate."""
    rate = parse_request_rate(section.rate).per_second
    delay = (faults.refusals + 1) * section.sync + 2 * faults.way
    return section.burst + (processes - 1) * (section.burst + rate * delay) + SLACK


def limit(rate: float, burst: int, sync: float) -> Limit:
    """A limit; ``sync`` is in increments."""
    values = {"key": "'all'", "cost": "query.cost", "rate": f"{rate:g}/s", "burst": burst, "sync": sync / rate}
    return Limit.model_construct(**{**Limit.model_construct().__dict__, **values})


LIMITS = st.builds(
    limit, st.sampled_from([0.5, 10.0, 300.0]), st.sampled_from([1, 3, 20]), st.sampled_from([0.3, 2.0, 15.0])
)
SEEDS = st.integers(0, 2**32)
PROCESSES = st.integers(1, 4)
WAYS = st.sampled_from([0.0, 0.01, 1.0])
"""In times of ``sync``."""
SIMULATED = settings(deadline=None, max_examples=50)


def times(section: Limit, count: float) -> float:
    """The seconds of so many increments."""
    return count / parse_request_rate(section.rate).per_second


@SIMULATED
@given(seed=SEEDS, section=LIMITS, processes=PROCESSES, way=WAYS)
def test_no_window_exceeds_the_bound_with_late_messages(seed: int, section: Limit, processes: int, way: float) -> None:
    faults = Faults(way * section.sync)
    machine = simulated(lambda each: each.vary(times(section, 200)), seed, section, processes, faults)
    assert machine.peak <= bound(section, processes, faults)


@SIMULATED
@given(seed=SEEDS, section=LIMITS, processes=PROCESSES, way=WAYS, refusals=st.integers(0, 3))
@example(seed=0, section=limit(10.0, 1, 2.0), processes=4, way=1.0, refusals=3)
def test_no_window_exceeds_the_bound_with_refusals_deaths_and_restarts(
    seed: int, section: Limit, processes: int, way: float, refusals: int
) -> None:
    until, chance = times(section, 200), random.Random(seed)
    deaths = tuple(chance.uniform(0, until) for _ in range(chance.randint(0, 3)))
    restarts = tuple(chance.uniform(0, until) for _ in range(chance.randint(0, 2)))
    faults = Faults(way * section.sync, refusals, deaths, restarts)
    machine = simulated(lambda each: each.vary(until), seed, section, processes, faults)
    ended = len(deaths) + len(restarts) * processes
    assert machine.peak <= bound(section, processes + ended, faults)


@SIMULATED
@given(seed=SEEDS, section=LIMITS, processes=PROCESSES, way=WAYS, refusals=st.integers(0, 2))
def test_the_long_run_rate_is_exact_while_every_worker_is_saturated(
    seed: int, section: Limit, processes: int, way: float, refusals: int
) -> None:
    faults = Faults(way * section.sync, refusals)
    machine = simulated(
        lambda each: each.saturate(times(section, 100), times(section, 0.25)), seed, section, processes, faults
    )
    assert 99 <= machine.admitted <= 100 + bound(section, processes, faults)


def test_a_single_process_never_exceeds_its_own_limit_whatever_happens_to_messages() -> None:
    section, faults = limit(10.0, 5, 1.0), Faults(0.1, 3)
    for seed in range(20):
        assert simulated(lambda each: each.vary(20.0), seed, section, 1, faults).peak <= section.burst + SLACK


def test_without_messages_the_processes_would_exceed_the_bound() -> None:
    """The simulation can tell: this is what the bound excludes."""
    section, lost = limit(10.0, 5, 1.0), Faults(refusals=10**9)

    async def refuse_all(machine: Machine) -> None:
        machine.random.random = lambda: 0.0  # type: ignore[method-assign]
        await machine.saturate(60.0, 0.02)

    machine = simulated(refuse_all, 1, section, 4, lost)
    assert machine.admitted > 600 + bound(section, 4, Faults())


def test_a_worker_that_begins_gets_what_the_others_have_spent() -> None:
    section = limit(0.5, 20, 0.3)

    async def grow(machine: Machine) -> None:
        for _ in range(20):
            machine.request(machine.workers[0], 1.0)
        await trio.sleep(2.0)
        machine.start_worker()
        await trio.sleep(section.sync)
        for _ in range(20):
            machine.request(machine.workers[-1], 1.0)

    assert simulated(grow, 1, section, 2, Faults()).admitted == 21


def test_many_new_keys_are_known_to_all_within_a_long_sync() -> None:
    keys, section = 50_000, limit(0.1, 20, 6.0)  # A sync of a minute: few steps must send them all.
    missing: list[int] = []

    async def flood(machine: Machine) -> None:
        first, *others = (worker.limiter for worker in machine.workers)
        now = trio.current_time()
        for number in range(keys):
            first.spend(str(number), first.decide_price(str(number), 20.0, now), now)
        await trio.sleep(section.sync + 1.0)
        now = trio.current_time()
        missing.extend(sum(other.decide_price(str(n), 20.0, now).admitted for n in range(keys)) for other in others)

    simulated(flood, 1, section, 3, Faults())
    assert missing == [0, 0]
