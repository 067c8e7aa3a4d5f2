"""Rules of a composition: order of calls, dependencies, failures, defaults and skips."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composition.composing import TWO, answer, compose
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs


async def test_independent_calls_run_at_the_same_time(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=1), "/b": answer(2, after=1)})
    assert ran.result.answer == {"a": 1, "b": 2}
    assert ran.result.completed
    assert ran.elapsed == pytest.approx(1)


async def test_a_call_starts_as_soon_as_its_dependencies_have_values(autojump_clock: trio.abc.Clock) -> None:
    text = TWO.replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": "x/y"}, after=1), "/b/x%2Fy": answer(2, after=1)})
    assert ran.result.answer == {"a": {"id": "x/y"}, "b": 2}
    assert ran.outcomes["b"].started_at - ran.outcomes["a"].started_at == pytest.approx(1)


async def test_a_required_call_that_fails_cancels_the_rest(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, status=500, after=1), "/b": answer(2, after=4)})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.STATUS, 502)
    assert ran.outcomes["b"].failure.kind is Kind.CANCELLED
    assert ran.elapsed == pytest.approx(1)
    problem = ran.result.problem("r-1").document()
    assert [call["name"] for call in problem["calls"]] == ["a"]


async def test_a_4xx_in_pass_status_is_the_status_of_the_answer() -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer({}, status=404)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404


async def test_a_failed_optional_call_gives_its_default_and_an_incomplete_answer() -> None:
    text = TWO + "optional = true\ndefault = []\n"
    ran = await compose(text, {"/a": answer(1), "/b": answer(None, status=503)})
    assert ran.result.answer == {"a": 1, "b": []}
    assert not ran.result.completed
    assert [outcome.call for outcome in ran.result.incomplete] == ["b"]


async def test_dependants_of_a_failed_call_without_a_default_fail_with_its_status() -> None:
    text = """
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    optional = true
    [routes.calls.b]
    upstream = "u"
    path = "/b/{a.id}"
    """
    ran = await compose(text, {"/a": answer({}, status=404)})
    assert ran.outcomes["b"].failure.kind is Kind.DEPENDENCY
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.DEPENDENCY, 404)


async def test_dependants_of_a_failed_call_with_a_default_are_made() -> None:
    text = """
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    optional = true
    default = { id = "fallback" }
    [routes.calls.b]
    upstream = "u"
    path = "/b/{a.id}"
    """
    ran = await compose(text, {"/a": answer({}, status=500), "/b/fallback": answer(2)})
    assert ran.result.answer == {"a": {"id": "fallback"}, "b": 2}
    assert not ran.result.completed


async def test_without_any_value_or_default_the_worst_failure_is_the_answer() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\noptional = true') + "optional = true\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({}, status=500)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 502


async def test_an_explicit_default_gives_an_answer_though_every_call_failed() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\noptional = true') + "optional = true\ndefault_null = true\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({}, status=500)})
    assert ran.result.failure is None
    assert ran.result.answer == {"a": None, "b": None}


@pytest.mark.parametrize("falsy", ["`false`", "`null`", "''", "`[]`", "`{}`", "path.nothing"])
async def test_a_false_when_skips_the_call_and_its_dependants(falsy: str) -> None:
    text = f"""
    [[routes]]
    path = "/r/<id>/<nothing>"
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    when = "{falsy}"
    [routes.calls.b]
    upstream = "u"
    path = "/b/{{a.id}}"
    """
    ran = await compose(text, {}, inputs=Inputs(path={"id": "1", "nothing": None}))
    assert [outcome.state for outcome in ran.result.outcomes] == ["skipped", "skipped"]
    assert ran.result.answer == {"a": None, "b": None}
    assert ran.result.completed
    assert ran.upstream.targets == []


async def test_the_number_zero_is_true_in_when() -> None:
    ran = await compose(TWO + 'when = "`0`"\n', {"/a": answer(1), "/b": answer(2)})
    assert ran.result.answer == {"a": 1, "b": 2}


async def test_dependants_of_a_skipped_call_with_a_default_are_made() -> None:
    text = """
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    when = "`false`"
    default = { id = 7 }
    [routes.calls.b]
    upstream = "u"
    path = "/b/{a.id}"
    """
    ran = await compose(text, {"/b/7": answer(2)})
    assert ran.result.answer == {"a": {"id": 7}, "b": 2}


async def test_an_expression_that_fails_on_a_response_fails_its_call() -> None:
    text = TWO + 'when = "a > `1` && sort(a) == `1`"\n'
    ran = await compose(text, {"/a": answer({"x": 1}), "/b": answer(2)})
    ran2 = await compose(text, {"/a": answer("text"), "/b": answer(2)})
    for each in (ran, ran2):
        if each.result.failure is not None:
            assert (each.result.failure.kind, each.result.failure.status) == (Kind.BAD_REQUEST, 502)
            assert "routes.0.calls.b.when" in each.recorder.logged[0].message


async def test_a_crash_in_a_transport_fails_its_call_and_is_recorded() -> None:
    async def crash(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    ran = await compose(TWO + "optional = true\n", {"/a": answer(1), "/b": crash})
    assert ran.outcomes["b"].failure.kind is Kind.INTERNAL
    assert isinstance(ran.recorder.logged[0].error, ZeroDivisionError)


async def test_a_chain_of_a_thousand_calls_fails_without_a_deep_stack() -> None:
    text = '[routes.calls.c0]\nupstream = "u"\npath = "/c0"\noptional = true\n'
    for number in range(1, 1000):
        text += f'[routes.calls.c{number}]\nupstream = "u"\npath = "/x/{{c{number - 1}}}"\noptional = true\n'
    ran = await compose(text, {"/c0": answer({}, status=404)})
    assert ran.outcomes["c999"].failure.kind is Kind.DEPENDENCY
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404
