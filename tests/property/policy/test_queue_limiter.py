"""The queue limiter grants places in turn and never beyond its capacity, whatever granted callbacks do."""

from __future__ import annotations

from collections.abc import Callable

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.upstream.errors import Overflow
from umbel.upstream.queue_limiter import QueueLimiter

MAX_WAITING = 6

RELEASE = st.tuples(st.just("release"), st.none())
SIMPLE = st.one_of(
    RELEASE,
    RELEASE,
    st.tuples(st.just("leave"), st.integers(0, 2)),
    st.tuples(st.just("resize"), st.integers(1, 4)),
)


def asks(steps: st.SearchStrategy[tuple[str, object]]) -> st.SearchStrategy[tuple[str, object]]:
    """Queue a waiter that takes steps within its granted callback."""
    return st.tuples(st.just("ask"), st.lists(steps, max_size=3))


STEPS = asks(RELEASE | asks(SIMPLE)) | asks(SIMPLE) | SIMPLE


class Model:
    """Takes steps, and checks at each grant that it was due."""

    def __init__(self, capacity: int) -> None:
        self.limiter = QueueLimiter(capacity, MAX_WAITING)
        self.capacity = capacity
        self.held = 0
        self.waiting: list[object] = []

    def take(self, step: tuple[str, object]) -> None:
        match step:
            case "release", _:
                if self.held:
                    self.held -= 1
                    self.limiter.release()
            case "leave", int(place):
                if place < len(self.waiting):
                    assert self.limiter.leave(self.waiting.pop(place))
            case "resize", int(capacity):
                self.capacity = capacity
                self.limiter.resize(capacity)
            case "ask", list(steps):
                self.ask(steps)

    def ask(self, steps: list[tuple[str, object]]) -> None:
        if self.limiter.take():
            assert not self.waiting, "it has overtaken one that waits"
            self.granted(steps)
            return
        key = object()
        self.waiting.append(key)
        try:
            self.limiter.queue(key, self.in_turn(key, steps))
        except Overflow:
            assert self.waiting.pop() is key
            assert len(self.waiting) == MAX_WAITING

    def in_turn(self, key: object, steps: list[tuple[str, object]]) -> Callable[[float], None]:
        def granted(now: float) -> None:
            assert self.waiting.pop(0) is key
            self.granted(steps)

        return granted

    def granted(self, steps: list[tuple[str, object]]) -> None:
        self.held += 1
        assert self.limiter.in_use == self.held <= self.capacity
        for step in steps:
            self.take(step)


async def _take_all(model: Model, steps: list[tuple[str, object]]) -> None:
    for step in steps:
        model.take(step)
        assert (model.limiter.in_use, model.limiter.statistics().waiting) == (model.held, len(model.waiting))
        assert not model.waiting or model.held >= model.capacity, "one waits though a place is free"


@settings(max_examples=300)
@given(st.integers(1, 4), st.lists(STEPS, min_size=5, max_size=40))
def test_places_are_granted_in_turn_and_never_beyond_the_capacity(
    capacity: int, steps: list[tuple[str, object]]
) -> None:
    trio.run(_take_all, Model(capacity), steps)
