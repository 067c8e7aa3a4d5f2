"""Records of calls: of all calls, or with ``slow_call`` only of notable ones."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support.composition.composing import Scripted, answer, by_path, facts, plan
from tests.support.logs.records import Records
from umbel.composition.plan_run import run
from umbel.core.call import Call, CallContext, Mode, PreparedRequest
from umbel.core.errors import UpstreamError
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Attempt, Inputs, Outcome

CALLS = """
[routes.calls.quick]
upstream = "u"
path = "/quick"
[routes.calls.slow]
upstream = "u"
path = "/slow"
[routes.calls.broken]
upstream = "u"
path = "/broken"
optional = true
[routes.calls.needy]
upstream = "u"
path = "/needy{?broken}"
optional = true
[routes.calls.skipped]
upstream = "u"
path = "/skipped"
when = "`false`"
"""


class NotableOnly(Records):
    slow_call = 1.0


async def fail(request: httpx.Request) -> httpx.Response:
    raise UpstreamError("refused")


HANDLERS = {"/quick": answer(1), "/slow": answer(1, after=1.5), "/broken": fail}


@pytest.mark.parametrize(
    ("recorder", "recorded"),
    [(Records(), {"quick", "slow", "broken", "needy", "skipped"}), (NotableOnly(), {"slow", "broken"})],
    ids=["all", "notable"],
)
async def test_a_call_that_is_not_notable_has_no_record(
    recorder: Records, recorded: set[str], autojump_clock: MockClock
) -> None:
    outcomes: dict[str, Outcome] = {}
    callers = {"u": TransportCaller(Scripted(by_path(HANDLERS)))}
    await run(plan(CALLS), Inputs(path={"id": "1"}), facts(), callers, recorder, None, outcomes)

    assert {event.outcome.call for event in recorder.calls} == recorded
    assert outcomes.keys() == {"quick", "slow", "broken", "needy", "skipped"}


class Repeated:
    """A caller whose calls need a second attempt."""

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        context.attempts += [Attempt(1, "r", 0.0, 0.1), Attempt(2, "r", 0.1, 0.2, 200, cause="retry")]
        return TransportCaller(Scripted(answer(1))).new_call(prepared, context)


async def test_a_retried_call_with_a_value_is_recorded(autojump_clock: MockClock) -> None:
    recorder = NotableOnly()
    one = plan('[routes.calls.a]\nupstream = "u"\npath = "/a"')
    await run(one, Inputs(path={"id": "1"}), facts(), {"u": Repeated()}, recorder)

    assert [event.outcome.state for event in recorder.calls] == ["value"]


async def test_a_cancelled_composition_records_the_outcome_of_each_call(autojump_clock: MockClock) -> None:
    outcomes: dict[str, Outcome] = {}
    callers = {"u": TransportCaller(Scripted(by_path(HANDLERS)))}
    with trio.move_on_after(1.0) as scope:
        await run(plan(CALLS), Inputs(path={"id": "1"}), facts(), callers, Records(), None, outcomes)

    assert scope.cancelled_caught
    assert {call: outcome.state for call, outcome in outcomes.items()} == {
        "quick": "value",
        "slow": "failed",
        "broken": "failed",
        "needy": "failed",
        "skipped": "skipped",
    }
