"""Gather blocks: calls launched in code, their handles, failures and cancels."""

from __future__ import annotations

import datetime
import decimal
import http
import math
import uuid
from typing import Any

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import Handler, Scripted, answer, by_path, config, facts
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.engine import INLINE_MAX
from umbel.composition.gather import CallHandle, Compose, CompositionFailedError
from umbel.composition.request.code_request import UpstreamDefaults
from umbel.core.errors import UmbelError
from umbel.core.events import LogMessage
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs
from umbel.policy.hedge import HedgeRules
from umbel.policy.retry import RetryOn, RetryRules


def composing(
    handlers: dict[str, Handler] | Handler,
    *,
    deadline: float = 5.0,
    inputs: Inputs | None = None,
    **upstreams: UpstreamDefaults,
) -> tuple[Compose, Scripted]:
    upstream = Scripted(handlers if callable(handlers) else by_path(handlers))
    return Compose({"u": upstream, "w": upstream}, inputs or Inputs(), facts(deadline), Records(), upstreams), upstream


async def test_calls_run_at_the_same_time_and_have_values_after_the_block(
    autojump_clock: trio.abc.Clock,
) -> None:
    compose, _ = composing({"/a": answer({"n": 1}, after=1), "/b": answer(2, after=1)})
    started = trio.current_time()
    async with compose.gather() as g:
        a = g.get("u", "/a")
        b = g.get("u", "/b", params={"x": 1, "none": None})
    assert (a.value, b.value) == ({"n": 1}, 2)
    assert trio.current_time() - started == pytest.approx(1)
    result = compose.result({"sum": a.value["n"] + b.value})
    assert [outcome.call for outcome in result.outcomes] == ["u", "u-2"]
    assert result.completed


async def test_a_handle_can_be_awaited_inside_the_block_to_chain_calls(autojump_clock: trio.abc.Clock) -> None:
    compose, upstream = composing({"/a": answer({"id": "x/y"}), "/b/x%2Fy": answer(2), "/b": answer(3)})
    async with compose.gather() as g:
        profile = await g.get("u", "/a", name="profile")
        b = g.get("u", "/b/{id}", values={"id": profile["id"]}, params={"l": [1, 2]})
    assert b.value == 2
    assert upstream.targets == ["/a", "/b/x%2Fy?l=1&l=2"]


@pytest.mark.parametrize(("given", "ends"), [({}, 60), ({"timeout": 90.0}, 90)])
async def test_a_call_in_a_handler_without_a_deadline_has_a_timeout(
    given: dict[str, float], ends: float, autojump_clock: trio.abc.Clock
) -> None:
    compose, _ = composing({"/a": answer(1, after=10_000)}, deadline=math.inf)
    async with compose.gather() as g:
        a = g.get("u", "/a", default=None, **given)  # type: ignore[arg-type]
    assert trio.current_time() == pytest.approx(ends)
    assert a.outcome.failure is not None
    assert a.outcome.failure.kind is Kind.TIMEOUT


async def test_reading_the_value_of_a_call_in_flight_raises_an_error() -> None:
    compose, _ = composing({"/a": answer(1)})
    async with compose.gather() as g:
        a = g.get("u", "/a")
        with pytest.raises(UmbelError, match="in flight"):
            _ = a.value


async def test_a_call_with_a_default_is_optional() -> None:
    compose, _ = composing({"/a": answer({}, status=500), "/b": answer(1)})
    async with compose.gather() as g:
        a = g.get("u", "/a", default=[])
        g.get("u", "/b")
    assert a.value == []
    result = compose.result({})
    assert not result.completed
    assert result.failure is None


async def test_a_gather_without_any_value_or_default_gives_the_worst_failure() -> None:
    compose, _ = composing({"/a": answer({}, status=500)})
    async with compose.gather() as g:
        g.get("u", "/a", optional=True)
    assert compose.result({}).failure is not None


async def test_at_the_deadline_optional_calls_have_their_defaults(autojump_clock: trio.abc.Clock) -> None:
    compose, _ = composing({"/a": answer(1), "/b": answer(2, after=9)}, deadline=1)
    async with compose.gather() as g:
        a = g.get("u", "/a")
        b = g.get("u", "/b", default=0)
    assert (a.value, b.value) == (1, 0)
    assert not compose.result({}).completed


async def test_at_the_deadline_a_required_call_in_flight_is_a_504(autojump_clock: trio.abc.Clock) -> None:
    compose, _ = composing({"/a": answer(1, after=9)}, deadline=1)
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.get("u", "/a")
    assert caught.value.result.failure is not None
    assert caught.value.result.failure.status == 504


async def test_a_block_that_has_not_ended_at_the_deadline_is_a_504(autojump_clock: trio.abc.Clock) -> None:
    compose, _ = composing({"/a": answer(1)}, deadline=1)
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.get("u", "/a")
            await trio.sleep_forever()
    assert caught.value.result.failure is not None
    assert caught.value.result.failure.status == 504


async def test_a_second_block_adds_to_the_same_answer() -> None:
    compose, _ = composing({"/a": answer(1), "/b": answer({}, status=500)})
    async with compose.gather() as g:
        g.get("u", "/a", name="a")
    async with compose.gather() as g:
        g.get("u", "/b", name="b", default=None)
    result = compose.result({})
    assert [outcome.call for outcome in result.outcomes] == ["a", "b"]
    assert not result.completed


async def test_call_names_are_unique_within_a_request() -> None:
    compose, _ = composing({"/a": answer(1)})
    async with compose.gather() as g:
        g.get("u", "/a", name="a")
        with pytest.raises(ValueError, match="already"):
            g.get("u", "/a", name="a")
        with pytest.raises(UmbelError, match="no upstream"):
            g.get("nobody", "/a")


@pytest.mark.parametrize("path", ["/users/..", "/users/../admin", "/users/%2e%2E/x", "/./x"])
async def test_a_path_with_a_dot_segment_is_a_bad_request(path: str) -> None:
    compose, upstream = composing({})
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.get("u", path)
    assert caught.value.result.failure is not None
    assert (caught.value.result.failure.kind, caught.value.result.failure.status) == (Kind.BAD_REQUEST, 400)
    assert upstream.targets == []


async def test_a_literal_path_is_percent_encoded() -> None:
    compose, upstream = composing({"/a%20b%23c": answer(1)})
    async with compose.gather() as g:
        g.get("u", "/a b#c", params={"q": "ü&"})
    assert upstream.targets == ["/a%20b%23c?q=%C3%BC%26"]


async def test_a_call_in_code_sends_its_body_and_headers() -> None:
    async def echo(request: httpx.Request) -> httpx.Response:
        kinds = [request.headers["content-type"], request.content.decode(), request.headers.get("x-a", "")]
        return httpx.Response(200, json=kinds)

    compose, _ = composing(echo)
    async with compose.gather() as g:
        a = g.post("u", "/a", json={"x": None}, headers={"X-A": "1"})
        b = g.put("u", "/a", form={"x": "a b", "y": None, "z": [1, 2]})
        with pytest.raises(ValueError, match="exclude each other"):
            g.post("u", "/a", json=1, content=b"")
    assert a.value == ["application/json", '{"x":null}', "1"]
    assert b.value == ["application/x-www-form-urlencoded", "x=a+b&z=1&z=2", ""]


async def test_a_header_with_an_invalid_value_is_left_out() -> None:
    compose, upstream = composing({"/a": answer(1)})
    headers = {"x-a": "1\r\nx-b: 2", "x-c": "Jos\u00e9", "x-d": "\u20ac", "x-e": "\ud800"}
    async with compose.gather() as g:
        call = g.get("u", "/a", headers=headers)
    assert call.value == 1
    (sent,) = upstream.requests
    assert not {"x-a", "x-b", "x-e"} & set(sent.headers)
    raw = dict(sent.headers.raw)
    # A str with characters below U+0100 is sent with one byte per character; any other str as UTF-8.
    assert (raw[b"x-c"], raw[b"x-d"]) == (b"Jos\xe9", "\u20ac".encode())


async def test_a_call_in_code_sends_the_configured_headers_and_params() -> None:
    made = config(
        '[upstreams.u]\nurls = ["http://x"]\nheaders = { authorization = "Bearer {headers.x_key}" }\n'
        'params = { v = "`2`" }\n'
    )
    defaults = UpstreamDefaults.of("u", made.upstreams["u"])
    compose, upstream = composing({"/a": answer(1)}, inputs=Inputs(headers={"x-key": "k"}), u=defaults)
    async with compose.gather() as g:
        g.get("u", "/a")
        g.get("u", "/a", params={"v": 3})
    assert sorted(upstream.targets) == ["/a?v=2", "/a?v=3"]
    assert upstream.requests[0].headers["authorization"] == "Bearer k"


async def test_a_client_header_that_makes_an_upstream_parameter_too_large_is_a_400() -> None:
    made = config('[upstreams.u]\nurls = ["http://x"]\nparams = { n = "join(headers.x_n, `[\\"a\\", \\"b\\"]`)" }\n')
    defaults = UpstreamDefaults.of("u", made.upstreams["u"])
    inputs = Inputs(headers={"x-n": "x" * 2**20})
    compose, upstream = composing({"/a": answer(1)}, inputs=inputs, u=defaults)
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.get("u", "/a")
    failure = caught.value.result.failure
    assert failure is not None
    assert (failure.kind, failure.status) == (Kind.BAD_REQUEST, 400)
    assert 'The header "x-n"' in failure.public
    assert upstream.targets == []


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [("/" + "x" * 20_000, {}, 400), ("/a", {"n": "x" * 20_000}, 502)],
    ids=["the path", "params"],
)
async def test_a_target_too_long_is_the_clients_mistake_only_by_its_path(
    path: str, params: dict[str, str], status: int
) -> None:
    """The values of ``params`` in code were reported to the client as a path that is too long."""
    compose, upstream = composing({"/a": answer(1)})
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.get("u", path, params=params)
    failure = caught.value.result.failure
    assert failure is not None
    assert (failure.status, bool(failure.public)) == (status, status == 400)
    assert upstream.targets == []


def test_an_upstream_whose_templates_need_a_route_cannot_be_called_from_code() -> None:
    made = config('[upstreams.u]\nurls = ["http://x"]\nheaders = { x-user = "{user_id}" }\n')
    with pytest.raises(UmbelError, match="cannot be called from code"):
        UpstreamDefaults.of("u", made.upstreams["u"])


async def test_an_answer_made_with_the_clients_credential_is_private() -> None:
    compose, _ = composing({"/a": answer(1, headers={"cache-control": "public, max-age=60"})})
    async with compose.gather() as g:
        g.get("u", "/a", headers={"Authorization": "Bearer x"})
    result = compose.result({})
    assert result.cache_control == "private, max-age=60"
    assert result.vary == ("authorization",)


class Marked(str):
    """A subclass of str, like that of markupsafe."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.50"), "1.50"),
        (http.HTTPStatus.OK, "200"),
        (Marked("x"), "x"),
        (7, "7"),
        (True, "true"),
    ],
)
async def test_a_value_whose_json_is_a_text_is_sent_as_that_text(value: Any, text: str) -> None:
    compose, upstream = composing({f"/a/{text}": answer(1)})
    async with compose.gather() as g:
        g.post("u", "/a/{v}{?v}", values={"v": value}, params={"p": value, "l": (value,)}, form={"f": {value}})
        g.post("u", "/a/{v}", values={"v": value}, headers={"x-v": value, "x-none": None}, json=[value])
    other, form = sorted(upstream.requests, key=lambda request: len(request.url.query))
    assert sorted(upstream.targets) == [f"/a/{text}", f"/a/{text}?v={text}&p={text}&l={text}"]
    assert form.content.decode() == f"f={text}"
    assert (other.headers["x-v"], "x-none" in other.headers) == (text, False)


DEEP: list[Any] = []
for _ in range(3000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "options",
    [
        {"json": {"a": "\ud800"}},
        {"json": DEEP},
        {"json": 10**5000},
        {"form": {"a": "\ud800"}},
        {"form": {"a": 10**5000}},
        {"params": {"a": "\ud800"}},
        {"params": {"a": 10**5000}},
        {"values": {"a": 10**5000}},
    ],
)
async def test_a_value_that_cannot_be_encoded_fails_only_its_call(options: Any) -> None:
    compose, upstream = composing({"/a": answer(1)})
    async with compose.gather() as g:
        odd = g.post("u", "/a{?a}" if "values" in options else "/a", optional=True, **options)
        other = g.get("u", "/a")
    assert (odd.outcome.failure and odd.outcome.failure.kind, other.value) == (Kind.BAD_REQUEST, 1)
    assert upstream.targets == ["/a"]


async def test_a_header_without_a_text_form_is_left_out_and_recorded() -> None:
    compose, upstream = composing({"/a": answer(1)})
    async with compose.gather() as g:
        g.get("u", "/a", headers={"x-list": [1], "x-table": {}, "x-nan": math.nan, "x-is": 1.5})
    (request,) = upstream.requests
    assert [name for name in request.headers if name.startswith("x-")] == ["x-is"]
    assert isinstance(compose.recorder, Records)
    noted = [event.fields["header"] for event in compose.recorder.events if isinstance(event, LogMessage)]
    assert noted == ["x-list", "x-table", "x-nan"]


async def test_a_header_that_would_lose_whitespace_is_left_out_and_recorded() -> None:
    compose, upstream = composing({"/a": answer(1)})
    async with compose.gather() as g:
        g.get("u", "/a", headers={"x-user": " ada", "x-tenant": "a ", "x-name": "Ada L", "x-empty": ""})
    (request,) = upstream.requests
    assert [name for name in request.headers if name.startswith("x-")] == ["x-name", "x-empty"]
    assert isinstance(compose.recorder, Records)
    noted = [event.message for event in compose.recorder.events if isinstance(event, LogMessage)]
    reason = "it begins or ends with whitespace, which no field keeps"
    assert noted == [f"x-user: {reason}", f"x-tenant: {reason}"]


async def test_a_bad_value_of_a_handler_is_a_502() -> None:
    compose, _ = composing({})
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            g.post("u", "/a", form={"x": {"no": "object"}})
    assert caught.value.result.failure is not None
    assert caught.value.result.failure.status == 502


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"optinal": True}, 'did you mean "optional"'),
        ({"retry": 3}, "retry must be a mapping with keys of attempts, on, backoff, max_backoff, not 3"),
        ({"retry": {"attempt": 3}}, "retry must be a mapping with keys of attempts"),
        ({"retry": {"attempts": True}}, "attempts of retry cannot be True"),
        ({"retry": {"on": "connect"}}, "on of retry cannot be 'connect'"),
        ({"retry": {"backoff": "10ms"}}, "backoff of retry cannot be '10ms'"),
        ({"hedge": {"max": 2}}, 'hedge needs the key "after"'),
        ({"hedge": "p95"}, "hedge must be a mapping with keys of after, max"),
        ({"coalesce": 1}, "coalesce must be True or False"),
        ({"timeout": "50ms"}, "timeout must be a number of seconds"),
        ({"decode": "xml"}, "decode must be one of"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds"),
        ({"ok": 404}, "ok must be a list"),
        ({"ok": ["200"]}, "ok must be a list of integers"),
        ({"name": 5}, "name must be a str"),
        ({"optional": "no"}, "optional must be True or False"),
        ({"pass_body": None}, "pass_body must be True or False"),
        ({"max_body": "1MB"}, "max_body must be a number of bytes above zero"),
        ({"params": "a=1"}, "params must be a mapping with str keys, not str"),
        ({"headers": [("x-a", "b")]}, "headers must be a mapping with str keys, not list"),
        ({"form": {1: "a"}}, "form must be a mapping with str keys"),
        ({"values": 5}, "values must be a mapping with str keys, not int"),
        ({"content": "text"}, "content must be bytes, not str"),
        ({"params": {"p": object()}}, '"p" is of the type object, which has no form in JSON'),
        ({"params": {"p": b"x"}}, '"p" is bytes; give a str'),
        ({"headers": {"x-a": object()}}, '"x-a" is of the type object, which has no form in JSON'),
        ({"json": {"a": [object()]}}, "json holds a value of the type object, which has no form in JSON"),
    ],
)
async def test_an_unknown_option_or_one_of_a_wrong_type_is_refused_at_once(
    options: dict[str, object], reason: str
) -> None:
    compose, upstream = composing({"/a": answer(1)})
    async with compose.gather() as g:
        with pytest.raises(TypeError, match=reason):
            g.get("u", "/a", **({"name": "a"} | options))
        # A refused call does not take its name.
        g.get("u", "/a", name="a")
    assert upstream.targets == ["/a"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"retry": {"attempts": 0}}, "attempts includes the first attempt"),
        ({"retry": {"attempts": 11}}, "at most 10 attempts"),
        ({"retry": {"on": ["tls"]}}, "cannot be retried"),
        ({"hedge": {"after": "20ms"}}, "is not a delay"),
        ({"hedge": {"after": 1, "max": 4}}, "at most 3 hedges"),
        ({"pass_status": [404, 304]}, "without 304"),
        ({"pass_status": [204]}, "from 300 to 599"),
        ({"pass_status": ["404"]}, "from 300 to 599"),
    ],
)
async def test_an_option_out_of_range_is_refused_at_once(options: dict[str, object], reason: str) -> None:
    compose, upstream = composing({"/a": answer(1)})
    async with compose.gather() as g:
        with pytest.raises(ValueError, match=reason):
            g.get("u", "/a", name="a", **options)
        g.get("u", "/a", name="a")
    assert upstream.targets == ["/a"]


async def test_a_calls_own_policies_are_passed_to_its_upstream() -> None:
    compose, _, upstream = scripted({"/": Reply(0)})
    async with compose.gather() as g:
        g.get(
            "u",
            "/a",
            retry={"attempts": 3, "on": ["connect", 503], "backoff": 0.01},
            hedge={"after": "p90", "max": 2},
            coalesce=False,
        )
        g.get("u", "/b")
    own, none = (call.context for call in upstream.calls)
    assert own.retry == RetryRules(3, RetryOn.of(["connect", 503]), 0.01)
    assert own.hedge == HedgeRules(quantile=0.9, max=2)
    assert own.coalesce is False
    assert (none.retry, none.hedge, none.coalesce) == (None, None, None)


async def test_a_call_that_cannot_be_made_leaves_its_name_free() -> None:
    compose, _ = composing({"/a": answer(1)})
    async with compose.gather() as g:
        with pytest.raises(ValueError, match="must begin with one"):
            g.get("u", "no-slash", name="a")
        kept = g.get("u", "/a", name="a")
    assert kept.value == 1


# Handles, and calls launched at any time.


def scripted(script: dict[str, Reply], deadline: float = 5.0) -> tuple[Compose, Records, ScriptedCaller]:
    upstream, records = ScriptedCaller(script), Records()
    return Compose({"u": upstream}, Inputs(), facts(deadline), records), records, upstream


def kinds(records: Records) -> dict[str, object]:
    """The value or the failure kind of each call. Each call must have one record."""
    outcomes = [event.outcome for event in records.calls]
    assert len({outcome.call for outcome in outcomes}) == len(outcomes)
    return {each.call: each.failure.kind if each.failure else each.value for each in outcomes}


async def test_any_number_of_tasks_may_await_a_handle_at_any_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    compose, _, _ = scripted({"/a": Reply(1.0), "/b": Reply(1.0, status=500)})
    values: list[object] = []

    async def wait_for(handle: CallHandle) -> None:
        values.append(await handle)

    async with compose.gather() as g:
        a, b = g.get("u", "/a"), g.get("u", "/b", default="d")
        async with trio.open_nursery() as nursery:
            for handle in (a, a, b):
                nursery.start_soon(wait_for, handle)
        assert trio.current_time() == 1.0
        values.append(await a)
    values.append(await b)
    assert sorted(map(str, values)) == ["1", "1", "1", "d", "d"]


async def test_calls_launched_in_one_turn_are_sent_together_without_tasks() -> None:
    compose, _, upstream = scripted({"/": Reply(0), "/b": Reply()})
    async with compose.gather() as g:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        a, b = g.get("u", "/a"), g.get("u", "/b")
        assert upstream.targets == []
        await wait_all_tasks_blocked()
        assert upstream.targets == ["/a", "/b"]
        assert a.value == 1
        assert trio.lowlevel.current_statistics().tasks_living == before
        upstream.of("/b").end()
        assert b.value == 1, "the handle has its value before any task has run"


async def test_a_call_that_waits_gets_a_task_in_the_block(autojump_clock: trio.abc.Clock) -> None:
    compose, _, _ = scripted({"/": Reply(1.0, waits=2)})
    async with compose.gather() as g:
        a = g.get("u", "/a")
    assert (a.value, trio.current_time()) == (1, 2.0)


async def test_an_awaited_handle_has_the_value_of_a_large_body() -> None:
    compose, _, upstream = scripted({"/": Reply(content=b"[" + b" " * INLINE_MAX + b"]")})
    async with compose.gather() as g:
        a = g.get("u", "/a")
        await wait_all_tasks_blocked()
        upstream.of("/a").end()
        with pytest.raises(UmbelError, match="in flight"):
            _ = a.value
        assert await a == []


async def test_a_call_launched_after_the_decision_is_never_sent() -> None:
    compose, records, upstream = scripted({"/": Reply(), "/a": Reply(0, status=500)})
    with pytest.raises(CompositionFailedError):
        async with compose.gather() as g:
            g.get("u", "/a", name="a")
            with pytest.raises(trio.Cancelled):
                await trio.sleep_forever()
            assert g.get("u", "/b", name="b").outcome.failure is not None
    assert kinds(records) == {"a": Kind.STATUS, "b": Kind.CANCELLED}
    assert upstream.targets == ["/a"]


@pytest.mark.parametrize("seen", [False, True], ids=["before any task has run", "after the cancel was seen"])
async def test_a_client_that_leaves_cuts_all_calls_of_a_block(seen: bool) -> None:
    compose, records, upstream = scripted({"/": Reply()})
    with trio.CancelScope() as client:
        async with compose.gather() as g:
            g.get("u", "/a", name="a")
            client.cancel(reason="client-gone")
            if seen:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await wait_all_tasks_blocked()
                    g.get("u", "/b", name="b")
    assert client.cancelled_caught
    assert kinds(records) == dict.fromkeys("ab" if seen else "a", Kind.CLIENT_GONE)
    assert upstream.targets == []
    assert not upstream.under_way


async def test_a_call_launched_after_the_deadline_is_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    compose, records, upstream = scripted({"/": Reply(0)}, deadline=1.0)
    with pytest.raises(CompositionFailedError):
        async with compose.gather() as g:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            g.get("u", "/a", name="a")
    assert kinds(records) == {"a": Kind.TIMEOUT}
    assert not upstream.started


async def test_a_call_launched_after_the_block_is_refused() -> None:
    compose, records, upstream = scripted({"/": Reply(0)})
    async with compose.gather() as g:
        pass
    with pytest.raises(UmbelError, match="its gather block has ended"):
        g.get("u", "/a", name="a")
    async with compose.gather() as second:
        second.get("u", "/b", name="a")
    assert kinds(records) == {"a": 1}
    assert upstream.targets == ["/b"]


async def test_a_required_failure_keeps_the_results_of_the_same_batch() -> None:
    compose, records, upstream = scripted({"/": Reply(), "/a": Reply(status=404), "/d": Reply(status=500)})
    with pytest.raises(CompositionFailedError) as caught:
        async with compose.gather() as g:
            for name in "abdc":
                handle = g.get("u", f"/{name}", name=name)
            await wait_all_tasks_blocked()
            for name in "abd":
                upstream.of(f"/{name}").end()
            await handle
    assert kinds(records) == {"a": Kind.STATUS, "b": 1, "c": Kind.CANCELLED, "d": Kind.STATUS}
    assert upstream.of("/c").cancelled == "decided"
    result = caught.value.result
    assert [outcome.call for outcome in result.outcomes] == ["a", "b", "d", "c"]
    assert result.failure is not None
    assert result.failure.received_status == 404, "the first failure counts"


@pytest.mark.parametrize("ended", ["by a status", "by its timeout", "with its block"])
@pytest.mark.parametrize("nested", [False, True])
async def test_a_task_that_awaits_a_required_call_that_fails_is_cancelled(
    nested: bool, ended: str, autojump_clock: trio.abc.Clock
) -> None:
    timeout, deadline = {"by a status": (4, 5), "by its timeout": (1, 5), "with its block": (4, 1)}[ended]
    handler = answer({}, status=500, after=2)
    compose, _ = composing({"/a": handler}, deadline=deadline)
    went_on: list[object] = []

    async def read(handle: CallHandle) -> None:
        went_on.append(await handle)

    async def run() -> None:
        async with compose.gather() as g:
            handle = g.get("u", "/a", timeout=timeout)
            try:
                if nested:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(read, handle)
                        nursery.start_soon(read, handle)
                else:
                    await read(handle)
            finally:
                await read(handle)  # The handle has its outcome by now.

    with pytest.raises(CompositionFailedError) as caught:
        await run()
    assert went_on == []
    assert caught.value.result.failure is not None
    assert caught.value.result.failure.kind is (Kind.STATUS if ended == "by a status" else Kind.TIMEOUT)


async def test_a_task_that_awaits_an_optional_call_that_fails_gets_its_default(autojump_clock: trio.abc.Clock) -> None:
    compose, _ = composing({"/a": answer({}, status=500, after=1), "/b": answer(2, after=1)})
    async with compose.gather() as g:
        a = g.get("u", "/a", optional=True)
        b, c = g.get("u", "/a", default=3), g.get("u", "/b")
        assert [await a, await b, await c] == [None, 3, 2]


@pytest.mark.parametrize("reply", [Reply(), Reply(9.0, waits=1)], ids=["without a task", "with a task"])
async def test_an_exception_in_a_block_cuts_its_calls_and_is_not_wrapped(
    reply: Reply, autojump_clock: trio.abc.Clock
) -> None:
    compose, records, upstream = scripted({"/": reply})
    with pytest.raises(ZeroDivisionError):
        async with compose.gather() as g:
            g.get("u", "/a", name="a")
            await wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert trio.current_time() == 0
    assert kinds(records) == {"a": Kind.CANCELLED}
    assert not upstream.under_way


async def test_all_calls_of_a_request_share_one_object_of_gateway_fields() -> None:
    upstream = ScriptedCaller({"/": Reply(1)})
    compose = Compose({"u": upstream}, Inputs(request_id="r-1"), facts(5.0), Records())
    for _ in range(2):
        async with compose.gather() as g:
            g.get("u", "/a")
            g.get("u", "/b")
    first, *others = (call.prepared.gateway for call in upstream.calls)
    assert first
    assert len(others) == 3
    assert all(other is first for other in others)
