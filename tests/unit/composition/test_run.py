"""The rules of a composition, each on the autojump clock."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composing import Scripted, answer, compose, facts, plan
from tests.support.records import Records
from umbel.composition.run import run
from umbel.kinds import Kind
from umbel.model import Inputs

TWO = """
[routes.calls.a]
upstream = "u"
path = "/a"
[routes.calls.b]
upstream = "u"
path = "/b"
"""


async def test_independent_calls_run_side_by_side(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=1), "/b": answer(2, after=1)})
    assert ran.result.answer == {"a": 1, "b": 2}
    assert ran.result.completed
    assert ran.elapsed == pytest.approx(1)


async def test_a_call_starts_the_moment_the_values_it_names_are_there(autojump_clock: trio.abc.Clock) -> None:
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


async def test_a_4xx_that_is_passed_is_the_answers_status() -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer({}, status=404)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404


async def test_an_optional_call_that_fails_gives_its_default_and_an_incomplete_answer() -> None:
    text = TWO + "optional = true\ndefault = []\n"
    ran = await compose(text, {"/a": answer(1), "/b": answer(None, status=503)})
    assert ran.result.answer == {"a": 1, "b": []}
    assert not ran.result.completed
    assert [outcome.call for outcome in ran.result.incomplete] == ["b"]


async def test_dependants_of_a_failed_call_without_default_fail_with_its_status() -> None:
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


async def test_dependants_of_a_failed_call_with_default_run() -> None:
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


async def test_if_every_call_failed_and_none_has_a_default_the_worst_is_the_answer() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\noptional = true') + "optional = true\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({}, status=500)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 502


async def test_an_explicit_default_keeps_an_answer_when_every_call_failed() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\noptional = true') + "optional = true\ndefault_null = true\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({}, status=500)})
    assert ran.result.failure is None
    assert ran.result.answer == {"a": None, "b": None}


@pytest.mark.parametrize("falsy", ["`false`", "`null`", "''", "`[]`", "`{}`", "path.nothing"])
async def test_when_false_skips_the_call_and_its_dependants_and_the_answer_stays_complete(falsy: str) -> None:
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


async def test_the_number_zero_is_true_as_jmespath_says() -> None:
    ran = await compose(TWO + 'when = "`0`"\n', {"/a": answer(1), "/b": answer(2)})
    assert ran.result.answer == {"a": 1, "b": 2}


async def test_a_skipped_call_with_a_default_lets_its_dependants_run() -> None:
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


async def test_at_the_deadline_the_partial_answer_goes_out(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(
        TWO + "optional = true\ndefault = []\n", {"/a": answer(1), "/b": answer(2, after=9)}, deadline=0.8
    )
    assert ran.elapsed == pytest.approx(0.8)
    assert ran.result.answer == {"a": 1, "b": []}
    assert not ran.result.completed
    assert ran.outcomes["b"].failure.kind is Kind.TIMEOUT


async def test_at_the_deadline_an_unfinished_required_call_is_a_504(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer(2, after=9)}, deadline=0.8)
    assert ran.elapsed == pytest.approx(0.8)
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.TIMEOUT, 504)


async def test_a_call_that_waited_for_an_unfinished_one_at_the_deadline_never_begins(
    autojump_clock: trio.abc.Clock,
) -> None:
    text = """
    [routes.calls.x]
    upstream = "u"
    path = "/x"
    [routes.calls.a]
    upstream = "u"
    path = "/a"
    optional = true
    default = { id = 1 }
    [routes.calls.b]
    upstream = "u"
    path = "/b/{a.id}"
    optional = true
    """
    ran = await compose(text, {"/x": answer(0), "/a": answer(1, after=9), "/b/1": answer(2)}, deadline=1)
    assert ran.upstream.targets.count("/b/1") == 0
    assert ran.outcomes["b"].failure.kind is Kind.TIMEOUT
    assert ran.outcomes["b"].started_at is None
    assert ran.result.answer == {"x": 0, "a": {"id": 1}, "b": None}


async def test_a_calls_own_timeout_ends_it_before_the_deadline(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(
        TWO + 'optional = true\ntimeout = "300ms"\n', {"/a": answer(1, after=0.1), "/b": answer(2, after=9)}
    )
    assert ran.elapsed == pytest.approx(0.3)
    assert ran.outcomes["b"].failure.kind is Kind.TIMEOUT


async def test_a_client_that_leaves_cuts_every_call_within_the_same_instant(autojump_clock: trio.abc.Clock) -> None:
    compiled = plan(TWO.replace('path = "/b"', 'path = "/b/{a.id}"'))
    upstream, recorder = Scripted(answer(1, after=9)), Records()
    with trio.CancelScope() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, compiled, Inputs(), facts(), {"u": upstream}, recorder)
            await trio.testing.wait_all_tasks_blocked()
            left_at = trio.current_time()
            client.cancel(reason="client-gone")
    assert trio.current_time() == left_at
    assert upstream.in_flight == 0
    kinds = {event.outcome.call: event.outcome.failure.kind for event in recorder.calls if event.outcome.failure}
    assert kinds == {"a": Kind.CLIENT_GONE, "b": Kind.CLIENT_GONE}


async def test_merge_order_is_the_order_of_the_config_never_of_completion(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=2), "/b": answer(2, after=1)})
    assert list(ran.result.answer) == ["a", "b"]


async def test_statuses_that_mean_null_and_statuses_that_are_fine() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\nnull_on = [404]') + "ok = [200, 409]\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({"x": 1}, status=409)})
    assert ran.result.answer == {"a": None, "b": {"x": 1}}
    assert ran.result.completed


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_a_failure_and_never_followed(status: int) -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer({}, status=status, headers={"location": "/a"})})
    assert ran.result.failure is not None
    assert (ran.result.failure.status, ran.result.failure.received_status) == (502, status)
    assert ran.upstream.targets.count("/a") == 1


async def test_the_upstreams_error_body_is_passed_where_asked() -> None:
    ran = await compose(TWO + "pass_body = true\n", {"/a": answer(1), "/b": answer({"no": 1}, status=422)})
    assert ran.result.failure is not None
    assert ran.result.failure.body is not None
    assert ran.result.failure.body.content == b'{"no":1}'


async def test_a_failed_expression_fails_its_call_as_internal_with_its_place() -> None:
    text = TWO + 'when = "a > `1` && sort(a) == `1`"\n'
    ran = await compose(text, {"/a": answer({"x": 1}), "/b": answer(2)})
    ran2 = await compose(text, {"/a": answer("text"), "/b": answer(2)})
    for each in (ran, ran2):
        if each.result.failure is not None:
            assert each.result.failure.kind is Kind.INTERNAL
            assert "routes.0.calls.b.when" in each.recorder.notes[0].message


async def test_a_failed_shape_is_a_500_and_never_an_exception() -> None:
    text = TWO + '[routes.answer]\nshape = "sort(a)"\n'
    ran = await compose(text, {"/a": answer({"x": 1}), "/b": answer(2)})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.INTERNAL, 500)


async def test_a_crash_in_a_layer_fails_its_call_and_is_recorded() -> None:
    async def crash(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    ran = await compose(TWO + "optional = true\n", {"/a": answer(1), "/b": crash})
    assert ran.outcomes["b"].failure.kind is Kind.INTERNAL
    assert isinstance(ran.recorder.notes[0].error, ZeroDivisionError)


@pytest.mark.parametrize("value", [None, "", ".", "..", [1], {"a": 1}])
async def test_a_value_that_is_no_segment_fails_the_call_as_bad_request(value: object) -> None:
    text = TWO.replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": value})})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 502)
    ran = await compose(
        TWO.replace('path = "/b"', 'path = "/b/{id}"'), {"/a": answer(1)}, inputs=Inputs(path={"id": value})
    )
    assert ran.result.failure is not None
    assert ran.result.failure.status == 400, "the value is the client's"


async def test_a_hostile_value_stays_one_encoded_segment() -> None:
    text = TWO.replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": "../../admin?x#y"}), "/b/..%2F..%2Fadmin%3Fx%23y": answer(2)})
    assert ran.result.answer["b"] == 2


async def test_shape_status_headers_and_cookies_of_the_answer() -> None:
    text = (
        TWO
        + """
    [routes.answer]
    shape = "{b: b, a: a}"
    status = 201
    headers = { x-who = "user {a}" }
    forward_headers = { b = ["x-total"] }
    forward_cookies = { b = ["session"] }
    """
    )

    async def with_cookies(request: httpx.Request) -> httpx.Response:
        cookies = [("set-cookie", "session=1; Path=/"), ("set-cookie", "track=2"), ("x-total", "7"), ("x-other", "8")]
        return httpx.Response(200, headers=cookies, content=b"2")

    ran = await compose(text, {"/a": answer(1), "/b": with_cookies})
    assert list(ran.result.answer.items()) == [("b", 2), ("a", 1)]
    assert ran.result.status == 201
    assert ran.result.headers == (("x-who", "user 1"), ("x-total", "7"), ("set-cookie", "session=1; Path=/"))


async def test_cache_control_is_the_most_restrictive_of_the_parts() -> None:
    ran = await compose(
        TWO,
        {
            "/a": answer(1, headers={"cache-control": "public, max-age=60", "age": "10"}),
            "/b": answer(2, headers={"cache-control": "max-age=90, must-revalidate"}),
        },
    )
    assert ran.result.cache_control == "must-revalidate, max-age=50"
    ran = await compose(TWO, {"/a": answer(1, headers={"cache-control": "max-age=60"}), "/b": answer(2)})
    assert ran.result.cache_control == "no-cache"
    ran = await compose(TWO, {"/a": answer(1), "/b": answer(2)})
    assert ran.result.cache_control is None


async def test_own_time_is_what_no_call_accounts_for(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=1), "/b": answer(2, after=2)})
    assert ran.result.own_ms == pytest.approx(0, abs=1)


async def test_a_chain_of_a_thousand_calls_fails_without_a_deep_stack() -> None:
    text = '[routes.calls.c0]\nupstream = "u"\npath = "/c0"\noptional = true\n'
    for number in range(1, 1000):
        text += f'[routes.calls.c{number}]\nupstream = "u"\npath = "/x/{{c{number - 1}}}"\noptional = true\n'
    ran = await compose(text, {"/c0": answer({}, status=404)})
    assert ran.outcomes["c999"].failure.kind is Kind.DEPENDENCY
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404


async def test_a_body_of_a_foreign_transport_is_closed_when_the_call_is_cut(autojump_clock: trio.abc.Clock) -> None:
    closed: list[bool] = []

    class Hanging(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b"{"
            await trio.sleep_forever()

        async def aclose(self) -> None:
            closed.append(True)

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Hanging())

    ran = await compose(TWO, {"/a": answer(1), "/b": handler}, deadline=1)
    assert ran.result.failure is not None
    assert ran.result.failure.kind is Kind.TIMEOUT
    assert closed == [True]


async def test_an_answer_that_sets_a_cookie_is_for_its_client_alone() -> None:
    text = TWO + "[routes.answer]\nforward_cookies = { a = ['session'] }\n"
    public = {"cache-control": "public, max-age=60"}
    setting = public | {"set-cookie": "session=1"}
    both = answer(2, headers=public)
    assert (await compose(text, {"/a": answer(1, headers=setting), "/b": both})).result.cache_control == (
        "private, max-age=60"
    )
    other = public | {"set-cookie": "track=1"}
    for headers in (public, other):
        ran = await compose(text, {"/a": answer(1, headers=headers), "/b": both})
        assert ran.result.cache_control == "public, max-age=60"


async def test_what_is_sent_upstream_is_what_the_plan_names_and_what_a_gateway_says() -> None:
    text = TWO + 'forward_headers = ["x-tenant", "x-request-id"]\nforward_query = ["q"]\nforward_cookies = ["s"]\n'
    inputs = Inputs(
        headers={"x-tenant": "t", "x-secret": "s", "x-request-id": "forged"},
        raw_query=[("q", "a b"), ("z", "1"), ("q", "c")],
        cookies={"s": "1", "t": "2"},
        forwarded=(("X-Request-Id", "r-1"), ("Via", "1.1 umbel")),
        forwarded_for=(("X-Forwarded-For", "10.0.0.1"),),
    )
    ran = await compose(text, {"/a": answer(1), "/b": answer(2)}, inputs=inputs)
    sent = next(r for r in ran.upstream.requests if r.extensions["target"].startswith(b"/b"))
    assert sent.extensions["target"] == b"/b?q=a%20b&q=c"
    headers = {name: value for name, value in sent.headers.items() if name not in ("host", "accept")}
    assert headers == {
        "x-tenant": "t",
        "cookie": "s=1",
        "x-request-id": "r-1",
        "via": "1.1 umbel",
        "x-forwarded-for": "10.0.0.1",
    }


@pytest.mark.parametrize(
    ("keys", "body", "content_type"),
    [
        ('json = "{x: body.a}"', b'{"x":"1 2"}', "application/json"),
        ('json = { x = "body.a" }', b'{"x":"1 2"}', "application/json"),
        ('form = "body"', b"a=1+2", "application/x-www-form-urlencoded"),
        ('form = { x = "body.a", y = "body.nope" }', b"x=1+2", "application/x-www-form-urlencoded"),
        ("forward_body = true", b"raw", "text/plain"),
    ],
)
async def test_bodies(keys: str, body: bytes, content_type: str) -> None:
    text = f'[routes.calls.a]\nupstream = "u"\npath = "/a"\n{keys}\n'
    inputs = Inputs(body={"a": "1 2"}, raw_body=b"raw", content_type="text/plain")
    ran = await compose(text, {"/a": answer(1)}, inputs=inputs)
    [sent] = ran.upstream.requests
    assert (sent.method, sent.content, sent.headers["content-type"]) == ("POST", body, content_type)


async def test_a_forwarded_header_with_a_line_break_is_refused() -> None:
    ran = await compose(
        TWO + 'forward_headers = ["x-a"]\n', {"/a": answer(1)}, inputs=Inputs(headers={"x-a": "1\r\nx-b: 2"})
    )
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 400)


async def test_the_deadline_cuts_every_call_in_flight_as_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    for _ in range(10):  # trio's order of the two tasks is random
        ran = await compose(TWO + "optional = true\n", {"/a": answer(1, after=9), "/b": answer(2, after=9)})
        assert {outcome.failure.kind for outcome in ran.result.outcomes if outcome.failure} == {Kind.TIMEOUT}
        assert [call["name"] for call in ran.result.problem("r").document()["calls"]] == ["a", "b"]
