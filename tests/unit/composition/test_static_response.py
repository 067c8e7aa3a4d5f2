"""Calls with a configured response: the rules of a call, its timeout and its end apply, and nothing is sent."""

from __future__ import annotations

import pytest
import trio

from tests.support.composition.composing import answer, compose, plan
from umbel.composition.static_response import StaticCaller, StaticResponse
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import CallTimedOut


def mock(respond: str, more: str = "") -> str:
    return f"[routes.calls.m]\nrespond = {{ {respond} }}\n{more}"


async def test_a_call_without_an_upstream_has_the_configured_value_and_sends_nothing() -> None:
    text = mock("json = { id = 7 }") + '[routes.calls.a]\nupstream = "u"\npath = "/a/{m.id}"\n'
    ran = await compose(text, {"/a/7": answer("seven")})
    assert ran.result.answer == {"m": {"id": 7}, "a": "seven"}
    assert ran.upstream.targets == ["/a/7"]
    assert ran.outcomes["m"].attempts == ()


async def test_a_call_with_upstream_and_path_keeps_its_dependencies_and_sends_nothing() -> None:
    text = '[routes.calls.a]\nupstream = "u"\npath = "/a"\n' + mock("json = 1", 'upstream = "u"\npath = "/m/{a.id}"\n')
    ran = await compose(text, {"/a": answer({"id": 3})})
    assert (ran.result.answer, ran.upstream.targets) == ({"a": {"id": 3}, "m": 1}, ["/a"])
    assert plan(text).calls[1].needs == ("a",)
    failed = await compose(text, {"/a": answer({"id": ".."})})
    assert failed.result.failure is not None
    assert failed.result.failure.kind is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    ("respond", "more", "value"),
    [
        ('text = "x"', 'decode = "text"\n', "x"),
        ("status = 204", "", None),
        ("status = 404", "null_on = [404]\n", None),
        ("status = 503", 'optional = true\ndefault = "d"\n', "d"),
        ("json = [1]", 'each = "`[1, 2]`"\n', [[1], [1]]),
        ("json = false", "", False),
    ],
)
async def test_the_rules_of_the_call_apply_to_the_response(respond: str, more: str, value: object) -> None:
    ran = await compose(mock(respond, more), {})
    assert ran.result.failure is None
    assert ran.result.answer == {"m": value}


async def test_a_status_of_failure_is_passed_on_with_its_fields_and_body() -> None:
    text = mock(
        'status = 401, text = "who?", headers = { www-authenticate = "Basic" }',
        "pass_status = [401]\npass_body = true\n",
    )
    ran = await compose(text, {})
    failure = ran.result.failure
    assert failure is not None
    assert (failure.status, failure.fields) == (401, (("www-authenticate", "Basic"),))
    assert failure.body is not None
    assert (failure.body.content, failure.body.content_type) == (b"who?", "text/plain; charset=utf-8")


async def test_a_body_of_no_json_fails_the_call() -> None:
    ran = await compose(mock('text = "{"'), {})
    assert ran.result.failure is not None
    assert ran.result.failure.kind is Kind.BAD_BODY


async def test_a_delay_runs_beside_other_calls_and_counts_against_the_timeout(autojump_clock: trio.abc.Clock) -> None:
    both = mock('json = 1, delay = "2s"') + '[routes.calls.a]\nupstream = "u"\npath = "/a"\n'
    ran = await compose(both, {"/a": answer(1, after=2)})
    assert (ran.result.completed, ran.elapsed) == (True, 2)
    timed_out = await compose(mock('json = 1, delay = "3s"', 'timeout = "1s"\noptional = true\ndefault = 0\n'), {})
    assert (timed_out.result.answer, timed_out.elapsed) == ({"m": 0}, 1)
    assert timed_out.outcomes["m"].failure.kind is Kind.TIMEOUT
    late = await compose(mock('json = 1, delay = "9s"'), {})
    assert late.result.failure is not None
    assert (late.result.failure.kind, late.elapsed) == (Kind.TIMEOUT, 5)


async def test_a_decided_composition_ends_the_delay(autojump_clock: trio.abc.Clock) -> None:
    text = 'combine = "first"\n' + mock('json = 1, delay = "4s"') + '[routes.calls.a]\nupstream = "u"\npath = "/a"\n'
    ran = await compose(text, {"/a": answer("first", after=1)})
    assert (ran.result.answer, ran.elapsed) == ("first", 1)
    assert ran.outcomes["m"].failure.kind is Kind.CANCELLED


async def perform(delay: float, limit: float | None = None) -> object:
    owner = SingleCallOwner()
    deadline = trio.current_time() + (limit or 60)
    context = CallContext(owner, "m", "respond", deadline=deadline, limit=limit)
    caller = StaticCaller(StaticResponse(200, (), b"1", delay))
    return await owner.perform(caller.new_call(PreparedRequest("GET", b"/", ()), context))


async def test_a_call_ends_with_its_own_timeout_and_at_a_cancel(autojump_clock: trio.abc.Clock) -> None:
    call = await perform(3, limit=1)
    assert isinstance(getattr(call, "error"), CallTimedOut)  # noqa: B009
    assert trio.current_time() == 1
    with trio.move_on_after(1) as scope:
        await perform(3)
    assert (scope.cancelled_caught, trio.current_time()) == (True, 2)


def test_a_stream_call_is_refused() -> None:
    caller = StaticCaller(StaticResponse(200, (), b"", 0))
    with pytest.raises(ValueError, match="only calls of mode"):
        caller.new_call(PreparedRequest("GET", b"/", ()), CallContext(SingleCallOwner(), "m", "respond"), "stream")


async def test_a_shape_without_calls_reads_the_request_alone() -> None:
    ran = await compose('query = ["q"]\n[routes.answer]\nshape = "{id: path.id, q: query.q}"\nstatus = 203\n', {})
    assert (ran.result.answer, ran.result.status, ran.result.outcomes) == ({"id": "1", "q": None}, 203, ())
    assert ran.result.completed
