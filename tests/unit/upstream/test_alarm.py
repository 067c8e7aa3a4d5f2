from __future__ import annotations

import random

import trio

from umbel.upstream.alarm import DROPPED_MAX, Alarm


async def test_each_is_called_at_its_own_time(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[tuple[float, float]] = []
    times = [random.Random(1).randrange(1, 1000) / 8 for _ in range(50)]
    for at in times:
        alarm.remind(at, lambda at=at: rung.append((at, trio.current_time())))
    assert len(alarm) == 50
    await trio.sleep(200)
    assert rung == [(at, at) for at in sorted(times)]
    assert len(alarm) == 0


async def test_those_of_one_time_are_called_in_the_order_they_came(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    rung: list[int] = []
    for number in range(5):
        alarm.remind(1.0, lambda number=number: rung.append(number))
    nursery.start_soon(alarm.run)
    await trio.sleep(1.5)
    assert rung == [0, 1, 2, 3, 4]


async def test_one_that_is_dropped_is_not_called_and_wakes_nobody(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[str] = []
    dropped = alarm.remind(2.0, lambda: rung.append("dropped"))
    alarm.remind(1.0, lambda: rung.append("kept"))
    dropped.drop()
    dropped.drop()
    assert dropped.is_dropped
    assert len(alarm) == 1
    await trio.sleep(3)
    assert rung == ["kept"]
    assert len(alarm) == 0


async def test_an_earlier_one_moves_the_alarm_forward(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[float] = []
    alarm.remind(100.0, lambda: rung.append(trio.current_time()))
    await trio.sleep(1)
    alarm.remind(2.0, lambda: rung.append(trio.current_time()))
    await trio.sleep(10)
    assert rung == [2.0]


async def test_a_time_in_the_past_is_called_at_once(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[float] = []
    await trio.sleep(5)
    alarm.remind(1.0, lambda: rung.append(trio.current_time()))
    await trio.sleep(1)
    assert rung == [5.0]


async def test_what_is_called_may_ask_to_be_called_again_or_drop_another(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[float] = []
    other = alarm.remind(1.0, lambda: rung.append(-1.0))
    other.drop()
    victim = alarm.remind(1.5, lambda: rung.append(-2.0))

    def again() -> None:
        rung.append(trio.current_time())
        victim.drop()
        if len(rung) < 3:
            alarm.remind(trio.current_time() + 1, again)

    alarm.remind(1.0, again)
    await trio.sleep(10)
    assert rung == [1.0, 2.0, 3.0]
    assert len(alarm) == 0


async def test_dropped_ones_do_not_pile_up(nursery: trio.Nursery, autojump_clock) -> None:
    alarm = Alarm()
    nursery.start_soon(alarm.run)
    rung: list[int] = []
    for number in range(10):
        alarm.remind(50.0, lambda number=number: rung.append(number))
    for _ in range(10_000):
        alarm.remind(1000.0, lambda: rung.append(-1)).drop()
        assert len(alarm._heap) <= 2 * 10 + DROPPED_MAX + 1
        assert len(alarm) == 10
    await trio.sleep(60)
    assert rung == list(range(10))
