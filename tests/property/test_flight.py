"""A flight's time against a model: the latest deadline of whoever still waits, in any order of coming and going."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.events import NULL
from umbel.model import CallFacts, RequestFacts, Trace
from umbel.upstream.flight import Flight

DEADLINES = st.floats(min_value=0, max_value=100)


def facts(deadline: float) -> CallFacts:
    request = RequestFacts(f"r-{deadline}", Trace("ab" * 16), "GET", "/", "/", deadline / 2, deadline + 1)
    return CallFacts("c", "u", request, deadline, NULL)


BOARD = st.tuples(st.just("board"), DEADLINES)
LEAVE = st.tuples(st.just("leave"), st.integers(0, 50))


@given(DEADLINES, st.lists(BOARD | LEAVE))
def test_its_time_is_that_of_whoever_waits_the_longest(first: float, steps: list[tuple[str, float | int]]) -> None:
    flight = Flight(facts(first), "own", "cd" * 16)
    waiting = {flight.board(facts(first)): first}
    for what, value in steps:
        if what == "board":
            number = flight.board(facts(value))
            assert number not in waiting
            waiting[number] = value
        else:
            number = sorted(waiting)[int(value) % len(waiting)]
            del waiting[number]
            assert flight.leave(number) is (not waiting)
            if not waiting:
                break
        longest = max(waiting.values())
        assert flight.waiting == len(waiting)
        assert flight.facts is not None
        assert flight.facts.deadline == longest
        assert flight.facts.request.deadline == longest + 1
        assert flight.facts.request.started_at == longest / 2
        assert (flight.facts.request.request_id, flight.facts.request.trace.trace_id) == ("own", "cd" * 16)
