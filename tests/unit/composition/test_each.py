"""``each``: places, limits, failures, deadlines."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composing import answer, compose
from umbel.kinds import Kind

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


async def test_results_stand_at_the_places_of_the_list_with_one_call_per_distinct_value() -> None:
    ran = await compose(EACH, serving(["b", "a", None, "b"], items()))
    assert ran.result.answer["items"] == ["/i/b", "/i/a", None, "/i/b"]
    assert sorted(ran.upstream.targets) == ["/i/a", "/i/b", "/list"]
    assert ran.result.completed


async def test_values_are_told_apart_by_their_json_not_by_pythons_equality() -> None:
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
async def test_every_value_of_another_json_is_a_call_of_its_own(values: list[object]) -> None:
    text = EACH.replace('path = "/i/{item}"', 'path = "/i"\nmethod = "POST"\njson = "item"')
    text += "max_items = 1000\n"

    async def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.read())

    ran = await compose(text, serving([*values, *values], echo))
    assert ran.result.answer["items"] == [*values, *values]
    assert [type(each) for each in ran.result.answer["items"]] == [type(each) for each in [*values, *values]]
    assert len(ran.upstream.targets) == 1 + len(values)


async def test_as_map_gives_an_object_by_value() -> None:
    ran = await compose(EACH + 'as = "map"\n', serving(["b", 1], items()))
    assert ran.result.answer["items"] == {"b": "/i/b", "1": "/i/1"}


@pytest.mark.parametrize(("source", "value"), [(None, []), ([], [])])
async def test_a_null_or_empty_source_is_an_empty_list(source: object, value: object) -> None:
    ran = await compose(EACH, serving(source, items()))
    assert ran.result.answer["items"] == value
    assert ran.result.completed


async def test_a_source_that_is_no_list_is_a_bad_request() -> None:
    ran = await compose(EACH, serving({"a": 1}, items()))
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 502)


async def test_more_than_max_items_is_too_many_and_calls_nothing() -> None:
    ran = await compose(EACH + "max_items = 2\n", serving(["a", "b", "c"], items()))
    assert ran.result.failure is not None
    assert ran.result.failure.kind is Kind.TOO_MANY
    assert ran.upstream.targets == ["/list"]
    ran = await compose(EACH + "max_items = 3\n", serving(["a", "b", "c"], items()))
    assert ran.result.completed


async def test_no_more_than_limit_items_are_in_flight(autojump_clock: trio.abc.Clock) -> None:
    most = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal most
        most = max(most, ran_upstream())
        await trio.sleep(1)
        return httpx.Response(200, content=b"1")

    flying = 0

    def ran_upstream() -> int:
        return flying

    async def counted(request: httpx.Request) -> httpx.Response:
        nonlocal flying
        flying += 1
        try:
            return await handler(request)
        finally:
            flying -= 1

    ran = await compose(EACH + "limit = 2\n", serving(list("abcde"), counted))
    assert most == 2
    assert ran.elapsed == pytest.approx(3)


async def test_a_failed_item_of_a_required_each_fails_it_and_cancels_the_others(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/i/b":
            return httpx.Response(404)
        await trio.sleep(9)
        return httpx.Response(200, content=b"1")

    ran = await compose(EACH, serving(["a", "b"], handler), deadline=99)
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404
    assert ran.elapsed == 0


async def test_a_failed_item_of_an_optional_each_is_item_default_at_its_places() -> None:
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


async def test_items_unfinished_at_the_deadline_are_failed_items_of_kind_timeout(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep(9 if request.extensions["target"] == b"/i/b" else 0.1)
        return httpx.Response(200, json=1)

    ran = await compose(EACH + "optional = true\n", serving(["a", "b", "c"], handler), deadline=1)
    assert ran.elapsed == pytest.approx(1)
    assert ran.result.answer["items"] == [1, None, 1]
    [failed] = ran.outcomes["items"].failed_items
    assert (failed.places, failed.failure.kind) == ((1,), Kind.TIMEOUT)


async def test_an_each_at_the_deadline_with_nothing_done_has_failed(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(EACH + "optional = true\n", serving(["a"], items(after=9)), deadline=1)
    assert ran.outcomes["items"].failure.kind is Kind.TIMEOUT
    assert ran.outcomes["items"].state == "failed"


async def test_a_calls_timeout_is_each_items_own(autojump_clock: trio.abc.Clock) -> None:
    text = EACH + 'optional = true\nlimit = 1\ntimeout = "1s"\n'
    ran = await compose(text, serving(list("abc"), items(after=0.9)))
    assert ran.result.completed
    assert ran.elapsed == pytest.approx(2.7)


async def test_items_are_counted_in_the_record() -> None:
    ran = await compose(EACH, serving(["a", "a", "b"], items()))
    assert [event.items for event in ran.recorder.calls if event.outcome.call == "items"] == [2]
