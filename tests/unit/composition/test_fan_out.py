"""Fan-out (``each``): indices, limits, failures, deadlines, start and end of items."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import PlanRun, answer, calls, compose
from tests.support.composition.scripted_calls import Reply, ScriptedCall, ScriptedCaller
from umbel.composition.engine import INLINE_MAX
from umbel.core.failure_kinds import Kind

EACH = """
[routes.calls.list]
upstream = "u"
path = "/list"
[routes.calls.items]
each = "list"
upstream = "u"
path = "/i/{item}"
"""


def items(*failing: str, after: float = 0.0, status: int = 500):  # type: ignore[no-untyped-def]
    async def handler(request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"].decode()
        await trio.sleep(after)
        if target.rpartition("/")[2] in failing:
            return httpx.Response(status)
        return httpx.Response(200, json=target)

    return handler


def serving(values: object, handler):  # type: ignore[no-untyped-def]
    async def both(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/list":
            return await answer(values)(request)
        return await handler(request)

    return both


async def test_each_distinct_value_has_one_call_and_its_result_all_indices() -> None:
    ran = await compose(EACH, serving(["b", "a", None, "b"], items()))
    assert ran.result.answer["items"] == ["/i/b", "/i/a", None, "/i/b"]
    assert sorted(ran.upstream.targets) == ["/i/a", "/i/b", "/list"]
    assert ran.result.completed


async def test_items_are_compared_by_their_json() -> None:
    ran = await compose(EACH, serving([1, True, 1.0, "1"], items()))
    assert ran.result.answer["items"] == ["/i/1", "/i/true", "/i/1.0", "/i/1"]
    assert len(ran.upstream.targets) == 5


@pytest.mark.parametrize(
    "values",
    [
        [0, 0.0, -0.0, False, "", "0"],
        [1, 1.0, True, "1", "true", "1.0"],
        [2**53, 2**53 + 1, 2**64, 2**64 + 1, 10**30, float(10**30), str(10**30)],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2}, {"a": True, "b": 2}, '{"a":1,"b":2}'],
        [[1], [1.0], [True], ["1"], [[1]], [None], "[1]"],
        ["null", "é", "e\u0301", "E\u0301", '"', '""', "\\", "a", '"a"', " a", "a "],
    ],
    ids=repr,
)
async def test_values_with_different_json_have_different_calls(values: list[object]) -> None:
    text = EACH.replace('path = "/i/{item}"', 'path = "/i"\nmethod = "POST"\njson = "item"')
    text += "max_items = 1000\n"

    async def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.read())

    ran = await compose(text, serving([*values, *values], echo))
    assert ran.result.answer["items"] == [*values, *values]
    assert [type(each) for each in ran.result.answer["items"]] == [type(each) for each in [*values, *values]]
    assert len(ran.upstream.targets) == 1 + len(values)


async def test_as_map_gives_an_object_with_the_items_as_keys() -> None:
    ran = await compose(EACH + 'as = "map"\n', serving(["b", 1], items()))
    assert ran.result.answer["items"] == {"b": "/i/b", "1": "/i/1"}


@pytest.mark.parametrize(("source", "value"), [(None, []), ([], [])])
async def test_an_each_over_null_or_an_empty_list_gives_an_empty_list(source: object, value: object) -> None:
    ran = await compose(EACH, serving(source, items()))
    assert ran.result.answer["items"] == value
    assert ran.result.completed


async def test_an_each_over_no_list_is_a_bad_request() -> None:
    ran = await compose(EACH, serving({"a": 1}, items()))
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 502)


async def test_a_list_longer_than_max_items_is_too_many_and_makes_no_call() -> None:
    ran = await compose(EACH + "max_items = 2\n", serving(["a", "b", "c"], items()))
    assert ran.result.failure is not None
    assert ran.result.failure.kind is Kind.TOO_MANY
    assert ran.upstream.targets == ["/list"]
    ran = await compose(EACH + "max_items = 3\n", serving(["a", "b", "c"], items()))
    assert ran.result.completed


def of_items(count: int, *, limit: int, more: str = "", **replies: Reply) -> tuple[str, ScriptedCaller]:
    """A route with the call a and an ``each`` over 0 to ``count`` - 1, and its upstream."""
    numbers = ",".join(map(str, range(count)))
    each = f'each = "`[{numbers}]`"\nlimit = {limit}\n{more}'
    text = calls("ab", a="optional = true", b=each).replace('"/b"', '"/b/{item}"')
    return text, ScriptedCaller({"/": Reply(), **{f"/b/{name[1:]}": reply for name, reply in replies.items()}})


async def test_an_item_beyond_the_limit_starts_when_another_has_ended(autojump_clock: trio.abc.Clock) -> None:
    text, upstream = of_items(
        5, limit=2, _0=Reply(1.0), _1=Reply(5.0), _2=Reply(1.0, waits=1), _3=Reply(1.0), _4=Reply(1.0)
    )
    ran = await compose(text + 'timeout = "9s"', upstream, deadline=9.0)
    started = {call.prepared.target: call.started_at for call in upstream.calls if call.context.call == "b"}
    assert list(started.values()) == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert ran.outcomes["b"].ended_at == 5.0
    assert ran.outcomes["b"].value == [1] * 5


async def test_items_that_end_in_one_turn_are_replaced_in_the_next_turn(autojump_clock: trio.abc.Clock) -> None:
    text, upstream = of_items(7, limit=3, _=Reply(1.0))
    ran = await compose(text, upstream)
    assert [call.started_at for call in upstream.calls if call.context.call == "b"] == [0, 0, 0, 1, 1, 1, 2]
    assert ran.outcomes["b"].ended_at == 3.0


async def test_ten_thousand_items_that_end_in_start_need_no_recursion(
    autojump_clock: trio.abc.Clock,
) -> None:
    text, upstream = of_items(10_000, limit=1, more="max_items = 10000\n", _=Reply(0))
    ran = await compose(text, upstream)
    assert ran.outcomes["b"].value == [1] * 10_000
    assert ran.outcomes["b"].ended_at == 0.0


async def test_a_failed_required_item_cancels_its_siblings(
    autojump_clock: trio.abc.Clock,
) -> None:
    text, upstream = of_items(5, limit=3, _0=Reply(3.0), _1=Reply(1.0, status=404), _2=Reply(9.0, waits=1))
    ran = await compose(text, upstream)
    assert ran.result.failure is not None
    assert ran.result.failure.received_status == 404
    assert upstream.targets == ["/a", "/b/0", "/b/1", "/b/2"]
    assert {call.prepared.target: call.cancelled for call in upstream.calls} == {
        b"/a": "decided",
        b"/b/0": "a required item failed",
        b"/b/1": None,
        b"/b/2": "a required item failed",
    }
    assert ran.elapsed == 1.0


# A required item fails while the composition goes on: with combine = "first" another call is enough.

ANY = '[[routes]]\npath = "/r"\ncombine = "first"\n'
FAILS = Reply(status=500)


async def beside_a_failure(upstream: ScriptedCaller, text: str, act: Callable[[], None]) -> PlanRun:
    """Run the composition: call ``act`` in one step while items are under way, then let the call a succeed."""

    async def end() -> None:
        await wait_all_tasks_blocked()
        act()
        await wait_all_tasks_blocked()
        upstream.of("/a").end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        ran = await compose(ANY + text, upstream)
    assert ran.kinds == {"a": 1, "b": Kind.STATUS}
    return ran


@pytest.mark.parametrize("content", [b"2", b"2" + b" " * INLINE_MAX], ids=["small", "large"])
@pytest.mark.parametrize("order", ["012", "120", "201"])
async def test_siblings_that_end_with_a_failed_required_item_change_nothing(content: bytes, order: str) -> None:
    text, upstream = of_items(3, limit=3, _=Reply(content=content), _1=FAILS)

    def end_all() -> None:
        for number in order:
            upstream.of(f"/b/{number}").end()

    await beside_a_failure(upstream, text, end_all)


async def test_an_item_that_fails_in_start_prevents_the_start_of_its_siblings() -> None:
    text, upstream = of_items(3, limit=3, _1=Reply(0, status=500))
    await beside_a_failure(upstream, text, lambda: None)
    assert upstream.targets == ["/a", "/b/0", "/b/1"]
    assert upstream.of("/b/0").cancelled == "a required item failed"


async def test_a_sibling_that_fails_by_a_freed_place_changes_nothing() -> None:
    text, upstream = of_items(3, limit=3, _1=FAILS)

    def end() -> None:
        first = upstream.of("/b/0")
        first.ended_at, first.status = trio.current_time(), 200
        upstream.of("/b/1").end()
        first.context.owner.call_ended(first)

    await beside_a_failure(upstream, text, end)


async def test_a_sibling_that_fails_by_the_cancel_of_another_is_cancelled() -> None:
    text, upstream = of_items(4, limit=4, _=FAILS)

    def end() -> None:
        for number, other in (("0", "2"), ("2", "0")):
            call = upstream.of(f"/b/{number}")

            def cancel(reason: str, call: ScriptedCall = call, other: str = other) -> None:
                ScriptedCall.cancel(call, reason)
                upstream.of(f"/b/{other}").end()

            call.cancel = cancel
        upstream.of("/b/1").end()

    await beside_a_failure(upstream, text, end)


async def test_items_have_their_number_and_share_one_list_of_attempts() -> None:
    text = EACH + "limit = 1\n"
    upstream = ScriptedCaller({"/i": Reply(0), "/list": Reply(0, value=["a", "b", "a", "c"])})
    await compose(text, upstream)
    listed, *items_ = (call.context for call in upstream.calls)
    assert listed.fan_out is None
    assert [each.fan_out.items[each.item].places[0] for each in items_] == [0, 1, 3]
    assert all(each.attempts is items_[0].attempts for each in items_)
    assert listed.attempts is not items_[0].attempts


async def test_the_deadline_cuts_all_items_and_starts_no_further_one(autojump_clock: trio.abc.Clock) -> None:
    text, upstream = of_items(4, limit=2, more="optional = true\n", _0=Reply(0.5))
    ran = await compose(text, upstream, deadline=1.0)
    assert upstream.targets == ["/a", "/b/0", "/b/1", "/b/2"]
    assert ran.outcomes["b"].value == [1, None, None, None]
    failed = [(each.places, each.failure.kind) for each in ran.outcomes["b"].failed_items]
    assert failed == [((1,), Kind.TIMEOUT), ((2,), Kind.TIMEOUT), ((3,), Kind.TIMEOUT)]
    assert ran.elapsed == 1.0


async def test_a_failed_item_of_an_optional_each_gives_item_default() -> None:
    text = EACH + "optional = true\nitem_default = 0\n"
    ran = await compose(text, serving(["a", "b", "a"], items("a")))
    assert ran.result.answer["items"] == [0, "/i/b", 0]
    assert not ran.result.completed
    [failed] = ran.outcomes["items"].failed_items
    assert (failed.places, failed.failure.kind) == ((0, 2), Kind.STATUS)
    assert ran.outcomes["items"].state == "value"


async def test_an_optional_each_whose_items_all_failed_has_failed() -> None:
    ran = await compose(EACH + "optional = true\ndefault = []\n", serving(["a", "b"], items("a", "b")))
    assert ran.outcomes["items"].state == "failed"
    assert ran.result.answer["items"] == []


async def test_an_each_without_any_result_at_the_deadline_has_failed(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(EACH + "optional = true\n", serving(["a"], items(after=9)), deadline=1)
    assert ran.outcomes["items"].failure.kind is Kind.TIMEOUT
    assert ran.outcomes["items"].state == "failed"


async def test_the_record_of_an_each_has_the_number_of_items() -> None:
    ran = await compose(EACH, serving(["a", "a", "b"], items()))
    assert [event.items for event in ran.recorder.calls if event.outcome.call == "items"] == [2]
