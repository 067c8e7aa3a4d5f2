"""The bulkhead's room, counted in requests, and what a stalled upstream refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from umbel.net.timers import TimerQueue
from umbel.upstream.calls.bulkhead import Bulkhead, OverloadManager
from umbel.upstream.errors import Overflow


class Users:
    """Asks for places, and keeps which calls were granted a place and which were refused."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self.granted: list[str] = []
        self.refused: list[str] = []

    def ask(self, request: str, call: str = "") -> None:
        name = request + call
        try:
            if self.bulkhead.admit(request):
                self.granted.append(name)
            else:
                self.bulkhead.wait(
                    name, request, lambda _: self.granted.append(name), lambda _: self.refused.append(name)
                )
        except Overflow:
            self.refused.append(name)

    def delay(self, request: str, call: str = "") -> None:
        """Wait for a limit."""
        name = request + call
        try:
            self.bulkhead.delay(name, request, lambda _: self.refused.append(name))
        except Overflow:
            self.refused.append(name)

    def delay_all(self, count: int, prefix: str = "") -> None:
        for number in range(count):
            self.delay(f"{prefix}{number}")

    def join(self, request: str, call: str = "") -> None:
        name = request + call
        try:
            self.bulkhead.join(name, request, lambda _: self.refused.append(name))
        except Overflow:
            self.refused.append(name)

    def ask_all(self, count: int, prefix: str = "") -> None:
        for number in range(count):
            self.ask(f"{prefix}{number}")

    def complete(self, request: str) -> None:
        self.bulkhead.completed_at = trio.current_time()
        self.bulkhead.give_back(request)


@asynccontextmanager
async def managed(*capacities: int, max_requests: int = 10, max_queue: int | None = None) -> AsyncIterator[list[Users]]:
    """One bulkhead per capacity, under one overload manager."""
    timers, manager = TimerQueue(), OverloadManager(max_requests)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield [Users(Bulkhead(capacity, max_queue, manager, timers)) for capacity in capacities]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_further_call_of_a_held_request_waits_in_a_full_queue(autojump_clock) -> None:
    async with managed(1, max_queue=1) as (users,):
        for call in "abc":
            users.ask("first", call)
        users.ask("second", "a")  # The first request's calls have filled the room for requests that wait.
        assert (users.granted, users.refused) == (["firsta"], ["seconda"])
        for expected in (["firsta", "firstb"], ["firsta", "firstb", "firstc"]):
            users.complete("first")
            assert users.granted == expected
        users.complete("first")
        assert (users.bulkhead.requests, users.bulkhead.in_use, users.bulkhead.queued) == ({}, 0, 0)


async def test_with_a_queue_of_zero_a_held_request_may_still_wait(autojump_clock) -> None:
    async with managed(2, max_queue=0) as (users,):
        for call in "abcd":
            users.ask("first", call)
        users.ask("second")
        assert users.refused == ["second"]
        assert users.bulkhead.overflowed == 1


async def test_by_default_as_many_requests_may_wait_as_the_server_serves(autojump_clock) -> None:
    async with managed(1, max_requests=10) as (users,):
        users.ask_all(11)
        assert users.refused == []
        users.ask("more")
        assert users.refused == ["more"]


async def test_no_call_is_refused_while_the_upstream_completes_calls(autojump_clock) -> None:
    async with managed(1) as (users,):
        users.ask_all(10)
        for number in range(10):
            await trio.sleep(0.9)
            users.complete(str(number))
        await trio.sleep(5)
        assert (len(users.granted), users.refused, users.bulkhead.stalled) == (10, [], False)


@pytest.mark.parametrize(("completed", "reason"), [(False, "yet"), (True, "for 1.1 s")])
async def test_the_refusal_of_a_stalled_upstream_names_the_time_since_its_last_call(
    autojump_clock, completed: bool, reason: str
) -> None:
    async with managed(10) as (users,):
        users.ask_all(11)
        if completed:
            users.complete("0")
        await trio.sleep(1.1)
        with pytest.raises(Overflow, match=f": it has completed no call {reason}$"):
            users.bulkhead.admit("more")


async def test_a_stalled_upstream_keeps_two_fifths_of_the_queue_and_refuses_the_last(
    autojump_clock,
) -> None:
    async with managed(1) as (users,):
        users.ask_all(9)
        await trio.sleep(0.99)
        assert (users.refused, users.bulkhead.stalled) == ([], False)
        await trio.sleep(0.02)
        assert (users.refused, users.bulkhead.stalled) == (["8", "7", "6", "5"], True)
        users.ask("late")
        assert users.refused[-1] == "late"


async def test_the_first_completed_call_restores_the_room_of_the_queue(autojump_clock) -> None:
    async with managed(1) as (users,):
        users.ask_all(9)
        await trio.sleep(2)
        refused = len(users.refused)
        users.complete("0")
        users.ask_all(6, "new")
        assert (len(users.refused), users.bulkhead.stalled) == (refused, False)
        await trio.sleep(2)
        assert users.bulkhead.stalled, "it is stalled anew"


async def test_stalled_upstreams_together_hold_at_most_four_fifths_of_the_requests(autojump_clock) -> None:
    async with managed(3, 3, 3) as (one, two, three):
        for users, prefix in ((one, "a"), (two, "b")):
            users.ask_all(5, prefix)
        await trio.sleep(1.1)
        held = len(one.bulkhead.requests) + len(two.bulkhead.requests)
        assert (held, one.bulkhead.stalled, two.bulkhead.stalled) == (8, True, True)
        one.ask("a9")
        two.ask("b9")
        assert (one.refused[-1], two.refused[-1]) == ("a9", "b9")
        three.ask_all(3, "c")
        assert three.refused == [], "it is not stalled"


async def test_a_request_at_two_stalled_upstreams_counts_once(autojump_clock) -> None:
    async with managed(3, 3) as (one, two):
        for users in (one, two):
            users.ask_all(7)
        await trio.sleep(1.1)
        assert one.refused == two.refused == []


async def test_a_stalled_upstream_with_free_places_holds_at_most_four_fifths(autojump_clock) -> None:
    async with managed(2) as (users,):
        users.ask_all(6)
        await trio.sleep(1.1)
        for name in ("5", "4", "3", "2"):
            users.bulkhead.leave(name)
        users.bulkhead.give_back("0")  # By a timeout: no call completed.
        users.ask("next")
        assert (users.granted[-1], users.bulkhead.stalled) == ("next", True)


async def test_a_full_server_gets_room_from_the_quiet_upstream_that_holds_the_most(autojump_clock) -> None:
    async with managed(1, 1) as (one, two):
        manager = one.bulkhead._overload_manager
        assert manager is not None
        assert not manager.make_room()
        one.ask_all(6, "a")
        two.ask_all(5, "b")
        assert manager.make_room()
        assert one.refused == ["a5"]
        one.bulkhead.completed_at = trio.current_time()
        assert manager.make_room()
        assert two.refused == ["b4"]
        assert not manager.make_room(), "the one works, and the other holds two fifths only"
        assert one.refused == ["a5"]


async def test_calls_cancelled_by_the_refusal_of_their_request_leave_nothing(autojump_clock) -> None:
    async with managed(1, max_requests=5) as (users,):
        users.ask_all(3)
        bulkhead, ends = users.bulkhead, []

        def refused(error: Overflow) -> None:
            ends.append([bulkhead.leave("xa"), bulkhead.leave("xb")])

        for name in ("xa", "xb"):
            bulkhead.wait(name, "x", lambda _: None, refused)
        await trio.sleep(1.1)
        assert ends == [[False, False], [False, False]]
        assert bulkhead.overflowed == 2
        assert "x" not in bulkhead.requests


async def test_without_an_overload_manager_an_upstream_is_never_stalled(autojump_clock) -> None:
    timers = TimerQueue()
    users = Users(Bulkhead(1, None, None, timers))
    users.ask_all(257)
    with pytest.raises(Overflow):
        users.bulkhead.wait("more", "more", lambda _: None, lambda _: None)
    assert (users.refused, len(timers)) == ([], 0)


async def test_a_stalled_upstream_refuses_the_calls_that_joined_last(
    autojump_clock,
) -> None:
    async with managed(3, 3) as (one, two):
        for users, prefix in ((one, "a"), (two, "b")):
            users.ask(f"{prefix}0")
            for number in range(1, 5):
                users.join(f"{prefix}{number}")
        await trio.sleep(0.9)
        assert one.refused == two.refused == []
        await trio.sleep(0.2)
        assert [one.refused, two.refused].count([]) == 1, "the first that is seen to be stalled is alone yet"
        assert len(one.bulkhead.requests) + len(two.bulkhead.requests) == 8
        one.join("late")
        assert one.refused[-1] == "late"
        one.join("a1", "again")
        assert one.refused[-1] == "late", "its request is held already"


async def test_a_full_server_gets_room_from_calls_that_joined(autojump_clock) -> None:
    async with managed(1) as (users,):
        manager = users.bulkhead._overload_manager
        assert manager is not None
        users.ask("0")
        for number in range(1, 6):
            users.join(f"{number}")
        assert manager.make_room()
        assert users.refused == ["5"]
        users.join("6")
        assert users.refused == ["5", "6"], "it takes nobody beyond two fifths until a call completes"
        users.complete("0")
        users.join("7")
        assert users.refused == ["5", "6"]
        assert not manager.make_room()


async def test_a_joined_call_that_leaves_is_held_no_longer(autojump_clock) -> None:
    async with managed(1) as (users,):
        users.join("0")
        users.bulkhead.leave_joined("0")
        users.bulkhead.leave_joined("0")
        assert (users.bulkhead.requests, users.bulkhead.joined) == ({}, {})


async def test_hanging_upstreams_with_free_places_hold_at_most_four_fifths(autojump_clock) -> None:
    async with managed(100, 100, 100) as upstreams:
        for number in range(3):
            for users in upstreams:
                users.ask(f"{id(users)}-{number}")
            await trio.sleep(0.6)
        assert sum(len(users.granted) for users in upstreams) == 8
        assert all(users.bulkhead.stalled for users in upstreams)


async def test_a_stalled_upstream_that_holds_no_request_is_no_longer_stalled(autojump_clock) -> None:
    async with managed(2) as (users,):
        users.ask_all(4)
        await trio.sleep(1.1)
        assert users.bulkhead.stalled
        for name in ("3", "2"):
            users.bulkhead.leave(name)
        for name in ("1", "0"):
            users.bulkhead.give_back(name)
        assert not users.bulkhead.stalled
        users.ask_all(10, "again")
        assert users.refused == []


async def test_many_calls_after_a_pause_get_a_full_second_before_the_stall(autojump_clock) -> None:
    async with managed(3) as (users,):
        users.ask_all(2)
        await trio.sleep(0.01)
        users.complete("0")
        users.complete("1")
        await trio.sleep(0.9)
        users.ask_all(10, "again")
        await trio.sleep(0.9)
        assert not users.bulkhead.stalled
        await trio.sleep(0.2)
        assert users.bulkhead.stalled


# Calls that wait for a limit


async def test_calls_that_wait_for_a_limit_take_room_of_their_requests_and_no_place(autojump_clock) -> None:
    async with managed(1, max_queue=2) as (users,):
        users.delay("first", "a")
        users.delay("first", "b")
        users.delay("second")
        users.delay("third")
        assert users.refused == ["third"]
        users.ask("first", "c")  # A place is free, and a call of another key takes it.
        assert (users.granted, users.bulkhead.in_use, users.bulkhead.queued) == (["firstc"], 1, 3)
        assert users.bulkhead.requests == {"first": 3, "second": 1}
        for call in ("firsta", "firstb", "second"):
            assert users.bulkhead.leave(call)
            assert not users.bulkhead.leave(call)
        users.complete("first")
        assert (users.bulkhead.requests, users.bulkhead.waiting, users.bulkhead.queued) == ({}, {}, 0)


async def test_a_call_whose_turn_has_come_takes_a_place_or_queues_for_one(autojump_clock) -> None:
    async with managed(1) as (users,):
        users.delay("first")
        users.delay("second")
        assert users.bulkhead.end_delay("first", lambda _: users.granted.append("first"))
        assert not users.bulkhead.end_delay("second", lambda _: users.granted.append("second"))
        assert (users.granted, users.bulkhead.queued) == ([], 1)
        users.complete("first")
        assert (users.granted, users.bulkhead.queued, users.bulkhead.in_use) == (["second"], 0, 1)


async def test_a_grant_that_is_undone_leaves_the_place_to_the_next_in_the_queue(autojump_clock) -> None:
    async with managed(1) as (users,):
        bulkhead = users.bulkhead
        users.ask("first")
        bulkhead.wait("second", "second", lambda _: bulkhead.delay_again("second", "second", print), print)
        users.ask("third")
        users.complete("first")
        assert (users.granted, bulkhead.in_use, list(bulkhead.waiting)) == (["first", "third"], 1, ["second"])
        assert bulkhead.requests == {"second": 1, "third": 1}


async def test_an_upstream_whose_calls_only_wait_for_a_limit_keeps_its_share_of_the_server(autojump_clock) -> None:
    async with managed(10, max_requests=10) as (users,):
        users.delay_all(8)
        assert users.refused == []
        await trio.sleep(1.1)
        assert users.bulkhead.stalled
        assert users.refused == ["7", "6", "5", "4"]
        users.delay("more")
        assert users.refused[-1] == "more"
        users.ask("3", "b")
        users.complete("3")
        assert not users.bulkhead.stalled


async def test_a_full_server_takes_the_room_of_the_request_that_waits_for_a_limit_last(autojump_clock) -> None:
    async with managed(10, max_requests=10) as (users,):
        users.delay_all(10)
        await trio.sleep(0.5)
        manager = users.bulkhead._overload_manager
        assert manager is not None
        assert manager.make_room()
        assert users.refused == ["9"]


async def test_places_given_back_in_a_batch_are_granted_together_at_its_end(autojump_clock) -> None:
    deferred: list[Callable[[], object]] = []
    granted: list[tuple[str, float]] = []
    bulkhead = Bulkhead(2, None, None, TimerQueue(), deferred.append)
    assert bulkhead.admit("first")
    assert bulkhead.admit("second")
    for name in "abc":
        bulkhead.wait(name, name, lambda now, name=name: granted.append((name, now)), lambda _: None)

    bulkhead.give_back("first")
    bulkhead.give_back("second")

    assert (granted, bulkhead.in_use, len(deferred)) == ([], 0, 1)
    assert not bulkhead.admit("late"), "it would overtake the calls that wait"
    deferred.pop()()
    assert granted == [("a", trio.current_time()), ("b", trio.current_time())]
    bulkhead.give_back("a")
    assert len(deferred) == 1
    deferred.pop()()
    assert [name for name, _ in granted] == ["a", "b", "c"]
