"""Calls with a split: which upstream a request gets, under whose rules, and what is recorded."""

from __future__ import annotations

import pytest
import trio

from tests.support.composition.composing import Scripted, answer, facts, plan
from tests.support.logs.records import Records
from umbel.composition.plan.plan import Plan
from umbel.composition.plan_run import PlanRun
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs

TEXT = """
[upstreams.v1]
urls = ["http://127.0.0.1:1"]
timeout = "1s"
[upstreams.v2]
urls = ["http://127.0.0.1:2"]
timeout = "2s"
[[routes]]
path = "/r/<id>"
query = ["q"]
[routes.calls.x]
upstream = "v1"
path = "/x"
split = {{ v2 = "10%" }}
{keys}
"""


class Two:
    """Two upstreams, and a run of a plan against them. The draws of chance are given."""

    def __init__(self, text: str | Plan, *drawn: float, after: float = 0.0) -> None:
        self.plan = plan(TEXT.format(keys=text)) if isinstance(text, str) else text
        self.v1, self.v2 = Scripted(answer(1, after=after)), Scripted(answer(2, after=after))
        self.records = Records()
        self._drawn = iter(drawn)

    async def run(self, inputs: Inputs | None = None) -> dict[str, object]:
        callers = {"v1": TransportCaller(self.v1), "v2": TransportCaller(self.v2)}
        made = PlanRun(self.plan, inputs or Inputs(path={"id": "1"}), facts(), callers, self.records)
        made.draw = self._drawn.__next__
        result = await made.run()
        return {each.call: each.failure.kind if each.failure else each.value for each in result.outcomes}


async def test_requests_without_a_key_are_split_at_random(autojump_clock: trio.abc.Clock) -> None:
    two = Two("", 0.05, 0.1, 0.99)
    assert [await two.run() for _ in range(3)] == [{"x": 2}, {"x": 1}, {"x": 1}]
    assert [call.upstream for call in two.records.calls] == ["v2", "v1", "v1"]


async def test_requests_with_a_key_are_always_at_one_upstream(autojump_clock: trio.abc.Clock) -> None:
    two = Two('split_key = "client.ip"')
    found = {ip: {(await two.run(Inputs(client=ip)))["x"] for _ in range(3)} for ip in ("192.0.2.1", "192.0.2.3", "b")}
    assert all(len(values) == 1 for values in found.values())
    many = [(await two.run(Inputs(client=f"192.0.2.{number}")))["x"] for number in range(100)]
    assert 2 <= many.count(2) <= 25


async def test_a_request_whose_key_is_null_is_split_at_random(autojump_clock: trio.abc.Clock) -> None:
    two = Two('split_key = "headers.x_user"', 0.0, 0.9)
    assert [await two.run(Inputs()) for _ in range(2)] == [{"x": 2}, {"x": 1}]


@pytest.mark.parametrize(("drawn", "limit"), [(0.0, 2.0), (0.5, 1.0)])
async def test_the_time_limit_is_that_of_the_chosen_upstream(
    drawn: float, limit: float, autojump_clock: trio.abc.Clock
) -> None:
    two = Two("", drawn, after=9.0)
    started = trio.current_time()
    assert await two.run() == {"x": Kind.TIMEOUT}
    assert trio.current_time() - started == pytest.approx(limit)
    (record,) = two.records.calls
    assert record.upstream == ("v2" if drawn == 0.0 else "v1")


async def test_all_items_of_an_each_are_at_the_upstream_that_was_chosen_once(autojump_clock: trio.abc.Clock) -> None:
    two = Two("each = \"['a', 'b', query.q]\"", 0.0)
    assert await two.run(Inputs(query={"q": "c"})) == {"x": [2, 2, 2]}
    assert (len(two.v1.requests), len(two.v2.requests)) == (0, 3)


async def test_a_skipped_call_draws_nothing(autojump_clock: trio.abc.Clock) -> None:
    two = Two('when = "query.q"')
    assert await two.run(Inputs(query={"q": None})) == {"x": None}


async def test_a_split_key_that_cannot_be_evaluated_fails_the_call(autojump_clock: trio.abc.Clock) -> None:
    key = "join('', [query.q, query.q])"
    two = Two(f'split_key = "{key}"')
    assert await two.run(Inputs(query={"q": "x" * 600_000})) == {"x": Kind.BAD_REQUEST}
    assert not two.v1.requests + two.v2.requests


async def test_copies_are_noted_for_the_chosen_share_and_only_if_asked_for(autojump_clock: trio.abc.Clock) -> None:
    text = TEXT.format(keys='mirror = { upstream = "v2", share = "50%" }').replace('split = { v2 = "10%" }', "")
    compiled = plan(text)
    noted = []
    for drawn in (0.49, 0.5):
        made = PlanRun(compiled, Inputs(), facts(), {"v1": TransportCaller(Scripted(answer(1)))}, Records())
        made.draw, made.copies = (lambda drawn=drawn: drawn), []
        await made.run()
        noted.append(len(made.copies))
    assert noted == [1, 0]
    unasked = PlanRun(compiled, Inputs(), facts(), {"v1": TransportCaller(Scripted(answer(1)))}, Records())
    await unasked.run()
    assert unasked.copies is None


async def test_each_item_of_an_each_is_copied(autojump_clock: trio.abc.Clock) -> None:
    keys = 'each = "[\'a\', \'b\']"\nmirror = { upstream = "v2", share = "100%" }'
    text = TEXT.format(keys=keys).replace('split = { v2 = "10%" }', "").replace('"/x"', '"/x/{item}"')
    made = PlanRun(plan(text), Inputs(), facts(), {"v1": TransportCaller(Scripted(answer(1)))}, Records())
    made.copies = []
    await made.run()
    prepared = [copy.prepare() for copy in made.copies]
    assert [each.target for each in prepared if each is not None] == [b"/x/a", b"/x/b"]


async def test_a_copy_whose_upstream_cannot_take_a_value_is_not_made(autojump_clock: trio.abc.Clock) -> None:
    text = TEXT.format(keys='mirror = { upstream = "v2", share = "100%" }').replace('split = { v2 = "10%" }', "")
    text = text.replace("[[routes]]", 'params = { q = "query.q" }\n[[routes]]')
    callers = {"v1": TransportCaller(Scripted(answer(1)))}
    made = PlanRun(plan(text), Inputs(query={"q": "x" * 20_000}), facts(), callers, Records())
    made.copies = []
    result = await made.run()
    assert result.completed
    assert [copy.prepare() for copy in made.copies] == [None]
