"""The wave: what comes in one turn is landed in one, limits and cancels cut, a bug fails its own call alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from tests.support.composing import facts, plan
from tests.support.flights import Flown, Lands
from tests.support.records import Records
from tests.support.scripts import Turns
from umbel.composition.request import Recipe
from umbel.composition.result import Result
from umbel.composition.run import Observer, run
from umbel.kinds import Kind
from umbel.model import Inputs, Outcome


async def compose(text: str, upstream: Flown, deadline: float = 5.0) -> tuple[Result, Records]:
    """Run a plan; every call has one outcome and one record, and every flight one end."""
    records = Records()
    result = await run(plan(text), Inputs(path={"id": "1"}), facts(deadline), {"u": upstream}, records)
    assert sorted(event.outcome.call for event in records.calls) == sorted(each.call for each in result.outcomes)
    upstream.assert_all_ended()
    return result, records


def calls(names: str, **more: str) -> str:
    """The tables of so many calls; ``more`` is added to those that it names."""
    return "\n".join(f'[routes.calls.{name}]\nupstream = "u"\npath = "/{name}"\n{more.get(name, "")}' for name in names)


def kinds(result: Result) -> dict[str, Any]:
    """What became of each call: its value, or its failure's kind."""
    return {each.call: each.failure.kind if each.failure else each.value for each in result.outcomes}


async def test_what_comes_in_one_turn_is_landed_in_one(autojump_clock: trio.abc.Clock) -> None:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    upstream = Flown({"/": Lands(1.0)}, turns)
    result, _ = await compose(calls("abcdefgh"), upstream)
    trio.lowlevel.remove_instrument(turns)
    assert result.answer == dict.fromkeys("abcdefgh", 1)
    assert len({flight.turn for flight in upstream.flights}) == 1
    assert upstream.asked == 0


async def test_a_composition_of_calls_in_the_air_has_no_tasks(autojump_clock: trio.abc.Clock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    living: list[int] = []
    upstream = Flown({"/": Lands(1.0, tell=lambda: living.append(trio.lowlevel.current_statistics().tasks_living))})
    await compose(calls("abc"), upstream)
    # Those of the upstream's own timers, of which one runs when it is asked.
    assert max(living) - before <= 3 + 1


async def test_dependants_are_sent_off_in_the_turn_of_what_they_name(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(1.0), "/b": Lands(2.0)})
    result, _ = await compose(calls("ab", b='when = "a == `1`"'), upstream)
    assert [flight.sent_at for flight in upstream.flights] == [0.0, 1.0]
    assert [outcome.started_at for outcome in result.outcomes] == [0.0, 1.0]


async def test_an_arrival_and_the_deadline_in_one_turn_leave_a_value(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(5.0), "/b": Lands(math.inf)})
    result, _ = await compose(calls("ab", a="optional = true", b="optional = true"), upstream)
    # Which of the two is first in the turn is the scheduler's to say; but never both, and never neither.
    assert kinds(result)["b"] is Kind.TIMEOUT
    assert kinds(result)["a"] in (1, Kind.TIMEOUT)


async def test_an_arrival_in_the_turn_of_a_cancel_is_landed_or_cut_but_once(autojump_clock: trio.abc.Clock) -> None:
    for cancel_first in (False, True):
        upstream = Flown({"/": Lands(math.inf)})
        records = Records()
        with trio.CancelScope() as scope:

            async def both(scope: trio.CancelScope = scope, upstream: Flown = upstream) -> None:
                await trio.sleep(1)
                if cancel_first:  # noqa: B023  # run in this turn of the loop
                    scope.cancel(reason="client-gone")
                for flight in upstream.flights:
                    flight.arrive()
                scope.cancel(reason="client-gone")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(both)
                await run(plan(calls("abc")), Inputs(), facts(), {"u": upstream}, records)
        ended = {event.outcome.call: event.outcome.state for event in records.calls}
        assert ended == dict.fromkeys("abc", "failed" if cancel_first else "value")
        assert {flight.ended for flight in upstream.flights} == {"cut" if cancel_first else "landed"}


async def test_a_flight_that_its_limit_cuts_in_the_turn_in_which_it_comes_has_one_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Flown({"/a": Lands(1.0), "/b": Lands(3.0)})
    result, _ = await compose(calls("ab", a='timeout = "1s"\noptional = true'), upstream)
    assert kinds(result)["a"] in (1, Kind.TIMEOUT, None)
    assert kinds(result)["b"] == 1


async def test_each_call_ends_at_its_own_limit(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(math.inf), "/b": Lands(math.inf), "/c": Lands(2.0), "/d": Lands(1.0)})
    text = calls(
        "abcd",
        a='timeout = "3s"\noptional = true',
        b='timeout = "1500ms"\noptional = true',
        c='timeout = "2500ms"\noptional = true',
    )
    result, _ = await compose(text, upstream)
    assert kinds(result) == {"a": Kind.TIMEOUT, "b": Kind.TIMEOUT, "c": 1, "d": 1}
    assert [outcome.ended_at for outcome in result.outcomes] == [3.0, 1.5, 2.0, 1.0]
    assert [flight.ended for flight in upstream.flights] == ["cut", "cut", "landed", "landed"]


@pytest.mark.parametrize("first", ["", 'timeout = "4s"'], ids=["without a limit", "with a later one"])
async def test_a_limit_is_kept_of_a_call_that_a_task_sends_off_while_others_fly(
    first: str, autojump_clock: trio.abc.Clock
) -> None:
    upstream = Flown({"/a": Lands(3.0), "/b": Lands(1.0, sent_off=False), "/c": Lands(math.inf)})
    text = calls("abc", a=first, c='when = "b == `1`"\ntimeout = "1s"\noptional = true')
    result, _ = await compose(text, upstream)
    assert [outcome.ended_at for outcome in result.outcomes] == [3.0, 1.0, 2.0]
    assert kinds(result) == {"a": 1, "b": 1, "c": Kind.TIMEOUT}


async def test_a_call_that_must_wait_is_carried_by_a_task(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(1.0, in_air=False), "/b": Lands(1.0), "/c": Lands(1.0, then_carried=1.0)})
    result, _ = await compose(calls("abc"), upstream)
    assert result.answer == {"a": 1, "b": 1, "c": 1}
    assert [flight.ended for flight in upstream.flights] == ["carried"] * 1 + ["landed", "carried"]
    assert [(each.started_at, each.ended_at) for each in result.outcomes] == [(0.0, 1.0), (0.0, 1.0), (0.0, 2.0)]


async def test_what_is_carried_ends_at_its_own_limit_counted_from_its_beginning(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/": Lands(1.0, then_carried=9.0)})
    result, _ = await compose(calls("a", a='timeout = "3s"\noptional = true'), upstream)
    assert kinds(result) == {"a": Kind.TIMEOUT}
    assert result.outcomes[0].ended_at == 3.0


async def test_a_response_in_pieces_stays_in_the_air(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/": Lands(1.0, pieces=4)})
    result, _ = await compose(calls("ab"), upstream)
    assert result.answer == {"a": 1, "b": 1}
    assert [outcome.ended_at for outcome in result.outcomes] == [4.0, 4.0]


@pytest.mark.parametrize("where", ["land", "send_off", "depart", "carry"])
async def test_a_bug_fails_its_own_call_as_internal_and_the_others_live(
    where: str, autojump_clock: trio.abc.Clock
) -> None:
    bug = Lands(1.0, bug=where, in_air=where != "carry")
    upstream = Flown({"/a": Lands(2.0), "/b": bug, "/c": Lands(3.0)})
    result, records = await compose(calls("abc", b="optional = true"), upstream)
    assert kinds(result) == {"a": 1, "b": Kind.INTERNAL, "c": 1}
    assert [(note.event, type(note.error)) for note in records.notes] == [("call.crashed", ZeroDivisionError)]


async def test_a_bug_in_cutting_one_leaves_no_other_uncut(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(math.inf, bug="cut"), "/": Lands(math.inf)})
    text = calls("abc", a="optional = true", b="optional = true", c='optional = true\ntimeout = "1s"')
    result, records = await compose(text, upstream, deadline=2.0)
    assert kinds(result) == dict.fromkeys("abc", Kind.TIMEOUT)
    assert [note.event for note in records.notes] == ["call.crashed"]


async def test_a_bug_before_a_call_is_sent_fails_it_alone(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    usual = Recipe.prepare

    def prepare(recipe: Recipe, *given: Any) -> Any:
        if recipe.fixed_target == b"/b":
            raise ZeroDivisionError
        return usual(recipe, *given)

    monkeypatch.setattr(Recipe, "prepare", prepare)
    upstream = Flown({"/": Lands(1.0)})
    result, records = await compose(calls("abc", b="optional = true"), upstream)
    assert kinds(result) == {"a": 1, "b": Kind.INTERNAL, "c": 1}
    assert [note.event for note in records.notes] == ["call.crashed"]


async def test_a_bug_between_two_calls_leaves_none_in_the_air(autojump_clock: trio.abc.Clock) -> None:
    class Broken(Observer):
        def call_ended(self, outcome: Outcome, *, decisive: bool) -> None:
            if outcome.call == "c":
                raise ZeroDivisionError

    # b and c come in one turn; where b is the first, it waits for a nursery when c breaks.
    upstream = Flown({"/a": Lands(math.inf), "/b": Lands(1.0, then_carried=1.0), "/c": Lands(1.0)})
    records = Records()
    with pytest.raises(ZeroDivisionError):
        await run(plan(calls("abc")), Inputs(), facts(), {"u": upstream}, records, Broken())
    assert [flight.ended for flight in upstream.flights] == ["cut", "cut", "landed"]
    assert sorted(event.outcome.call for event in records.calls) == ["a", "b", "c"]


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_nothing_is_sent_for_an_answer_that_is_decided_in_the_same_turn(
    order: str, autojump_clock: trio.abc.Clock
) -> None:
    upstream = Flown({"/": Lands(1.0)})
    result, _ = await compose(calls(order).replace('path = "/b"', 'path = "/b/{headers.x_missing}"'), upstream)
    assert result.failure is not None
    assert result.failure.kind is Kind.BAD_REQUEST
    assert kinds(result)["a"] is Kind.CANCELLED
    assert not upstream.flights


async def test_the_first_answer_cuts_the_rest_in_its_turn(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(3.0), "/b": Lands(1.0), "/c": Lands(9.0, in_air=False)})
    text = 'combine = "first"\n' + calls("abc")
    result, _ = await compose(f'[[routes]]\npath = "/r"\n{text}', upstream)
    assert result.answer == 1
    assert kinds(result) == {"a": Kind.CANCELLED, "b": 1, "c": Kind.CANCELLED}
    assert trio.current_time() == 1.0


async def test_a_required_failure_cuts_the_rest_and_decides(autojump_clock: trio.abc.Clock) -> None:
    upstream = Flown({"/a": Lands(3.0), "/b": Lands(1.0, status=500), "/c": Lands(9.0)})
    result, _ = await compose(calls("abc"), upstream)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.received_status) == (Kind.STATUS, 500)
    assert kinds(result) == {"a": Kind.CANCELLED, "b": Kind.STATUS, "c": Kind.CANCELLED}


async def test_thousands_fly_at_once(autojump_clock: trio.abc.Clock) -> None:
    text = "\n".join(f'[routes.calls.c{n}]\nupstream = "u"\npath = "/{n}"' for n in range(2000))
    upstream = Flown({"/": Lands(1.0)})
    result, _ = await compose(text, upstream)
    assert len(result.answer) == len(upstream.flights) == 2000
