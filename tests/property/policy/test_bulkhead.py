"""The bulkhead's counts stay right in any order of events, and no call waits while a place is free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.net.timers import TimerQueue
from umbel.upstream.calls.bulkhead import Bulkhead, OverloadManager
from umbel.upstream.errors import Overflow

MAX_REQUESTS = 6
STEPS = st.one_of(
    *(st.tuples(st.just("ask"), st.integers(0, 9)) for _ in range(3)),
    st.tuples(st.just("complete"), st.integers(0, 9)),
    st.tuples(st.just("cut"), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("resize"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 1.1])),
    st.tuples(st.just("press"), st.none()),
)


@dataclass
class Model:
    """Model of a bulkhead's calls: (request, number of the call)."""

    bulkhead: Bulkhead
    manager: OverloadManager
    in_flight: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    asked: int = 0

    def ask(self, request: int) -> None:
        self.asked += 1
        call = (request, self.asked)
        try:
            if self.bulkhead.admit(request):
                self.in_flight.append(call)
                return
            self.waiting.append(call)
            self.bulkhead.wait(call, request, lambda _: self.granted(call), lambda _: self.waiting.remove(call))
        except Overflow:
            if call in self.waiting:
                self.waiting.remove(call)
            assert all(request != other for other, _ in self.in_flight + self.waiting), "its calls share its room"

    def granted(self, call: tuple[int, int]) -> None:
        assert self.waiting.pop(0) is call, "it has overtaken one that waits"
        self.in_flight.append(call)

    def take(self, step: str, value: int) -> None:
        match step:
            case "ask":
                self.ask(value)
            case "complete" | "cut" if value < len(self.in_flight):
                if step == "complete":
                    self.bulkhead.completed_at = trio.current_time()
                self.bulkhead.give_back(self.in_flight.pop(value)[0])
            case "leave" if value < len(self.waiting):
                assert self.bulkhead.leave(self.waiting.pop(value))
            case "resize":
                self.bulkhead.resize(value)
            case "press":
                self.manager.make_room()

    def check(self) -> None:
        bulkhead = self.bulkhead
        assert (bulkhead.in_use, bulkhead.queued) == (len(self.in_flight), len(self.waiting))
        assert bulkhead.requests == Counter(request for request, _ in self.in_flight + self.waiting)
        assert set(bulkhead.waiting) == {request for request, _ in self.waiting}
        assert not self.waiting or bulkhead.in_use >= bulkhead.capacity, "one waits though a place is free"


async def _run(capacity: int, steps: list[tuple[str, int]]) -> None:
    timers, manager = TimerQueue(), OverloadManager(MAX_REQUESTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        model = Model(Bulkhead(capacity, None, manager, timers), manager)
        for step, value in steps:
            if step == "wait":
                await trio.sleep(value)
            else:
                model.take(step, value)
            model.check()
        nursery.cancel_scope.cancel(reason="the test is over")


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(STEPS, min_size=5, max_size=40))
def test_counts_stay_right_and_no_call_overtakes_in_any_order_of_events(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    trio.run(_run, capacity, steps, clock=trio.testing.MockClock(autojump_threshold=0))
