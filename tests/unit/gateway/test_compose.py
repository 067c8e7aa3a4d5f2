"""Handlers of ``@app.compose``: responses, failures, deadlines, status and header fields."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
from quart import Response

from tests.support.server.asgi import ask, living
from umbel.core.events import LogMessage
from umbel.core.failure_kinds import Kind

from .gateways import Function, gateway, says

pytestmark = pytest.mark.usefixtures("way")
MockClock = trio.testing.MockClock


async def never(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


async def test_a_handler_composes_its_answer(autojump_clock: MockClock) -> None:
    users, orders = Function(says({"name": "Ann"})), Function(says({}, status=500))
    app, records = gateway(users=users, orders=orders)

    @app.compose("/report/<user_id>", deadline=0.8)
    async def report(compose: Any, user_id: str) -> Any:
        async with compose.gather() as g:
            profile = g.get("users", f"/users/{user_id}", name="profile")
            found = g.get("orders", "/orders", params={"user": user_id}, default=[])
        return {"name": profile.value["name"], "orders": found.value}

    async with living(app):
        answer = await ask(app, target="/report/7")
    assert (answer.status, answer.json) == (200, {"name": "Ann", "orders": []})
    assert users.target == b"/users/7"
    assert orders.target == b"/orders?user=7"
    assert answer["umbel-completed"] == "false"
    assert answer["proxy-status"] == 'umbel;received-status=500;next-hop="orders"'
    assert answer["cache-control"] == "no-store"
    (record,) = records.requests
    assert (record.request.route, record.completed) == ("/report/<user_id>", False)


async def test_a_required_call_that_fails_is_answered_with_its_problem(autojump_clock: MockClock) -> None:
    app, records = gateway(users=says({}, status=404))

    @app.compose("/x")
    async def x(compose: Any) -> Any:
        async with compose.gather() as g:
            g.get("users", "/")
        return "unreachable"

    @app.compose("/nested")
    async def nested(compose: Any) -> Any:
        async with trio.open_nursery(), compose.gather() as g:
            g.get("users", "/")
        return "unreachable"

    async with living(app):
        for target in ("/x", "/nested"):
            answer = await ask(app, target=target)
            assert (answer.status, answer["content-type"]) == (404, "application/problem+json")
    assert [record.kind for record in records.requests] == [Kind.STATUS, Kind.STATUS]
    assert not records.logged


@pytest.mark.parametrize("place", ["body", "nursery in the block", "nursery around the block", "shielded", "later"])
async def test_a_handler_that_awaits_a_failed_required_call_is_answered_with_the_problem(
    place: str, autojump_clock: MockClock
) -> None:
    app, records = gateway(users=says({}, status=500))

    async def segment(profile: Any) -> Any:
        return (await profile)["segment"]

    @app.compose("/x")
    async def x(compose: Any) -> Any:
        async with trio.open_nursery() as around, compose.gather() as g:
            profile = g.get("users", "/", name="profile")
            match place:
                case "body":
                    await segment(profile)
                case "nursery in the block":
                    async with trio.open_nursery() as within:
                        within.start_soon(segment, profile)
                case "nursery around the block":
                    around.start_soon(segment, profile)
                case "shielded":
                    with trio.CancelScope(shield=True):
                        await segment(profile)
                case "later":
                    try:
                        await trio.sleep_forever()
                    finally:
                        await segment(profile)

    async with living(app):
        answer = await ask(app, target="/x")
    assert (answer.status, answer["content-type"]) == (502, "application/problem+json")
    assert [(call["name"], call["kind"]) for call in answer.json["calls"]] == [("profile", "status")]
    assert not records.logged


async def test_a_failed_gather_block_within_another_hides_no_call(autojump_clock: MockClock) -> None:
    app, records = gateway(slow=never, users=says({}, status=404))

    @app.compose("/x")
    async def x(compose: Any) -> Any:
        async with compose.gather() as outer:
            outer.get("slow", "/")
            await trio.sleep(0.1)
            async with compose.gather() as inner:
                inner.get("users", "/")
        return "unreachable"

    async with living(app):
        answer = await ask(app, target="/x")
    assert answer.status == 404
    (record,) = records.requests
    cut, failed = record.calls
    assert (cut.call, failed.call) == ("slow", "users")
    assert cut.failure is not None
    assert cut.failure.kind is Kind.CANCELLED


async def test_at_the_deadline_the_response_has_the_calls_that_succeeded(autojump_clock: MockClock) -> None:
    app, _ = gateway(fast=says(1), slow=never)

    @app.compose("/x", deadline=0.5)
    async def x(compose: Any) -> Any:
        async with compose.gather() as g:
            fast = g.get("fast", "/")
            slow = g.get("slow", "/", default=None)
        return {"fast": fast.value, "slow": slow.value}

    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/x")
        assert trio.current_time() - began == pytest.approx(0.5, abs=0.02)
    assert (answer.status, answer.json) == (200, {"fast": 1, "slow": None})
    assert answer["umbel-completed"] == "false"


async def test_a_handler_that_runs_past_the_deadline_is_cancelled(autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.compose("/x", deadline=0.5)
    async def x(compose: Any) -> Any:
        await trio.sleep(60)

    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/x")
        assert trio.current_time() - began == pytest.approx(0.5, abs=0.021)
    assert answer.status == 504
    assert records.requests[0].kind is Kind.TIMEOUT


async def test_a_handler_without_deadline_is_not_cut(autojump_clock: MockClock) -> None:
    app, _ = gateway()

    @app.compose("/x", deadline=None)
    async def x(compose: Any) -> Any:
        await trio.sleep(30)
        return "late"

    async with living(app):
        assert (await ask(app, target="/x")).json == "late"


async def test_a_quart_response_of_a_handler_is_sent_unchanged(autojump_clock: MockClock) -> None:
    app, _ = gateway()

    @app.compose("/x", methods=["POST"], expose="none")
    async def x(compose: Any) -> Any:
        return Response("mine", 201)

    async with living(app):
        answer = await ask(app, "POST", "/x")
    assert (answer.status, answer.body) == (201, b"mine")


async def test_a_crash_in_a_handler_is_a_500_and_recorded(autojump_clock: MockClock) -> None:
    app, records = gateway(users=says(1))

    @app.compose("/x")
    async def x(compose: Any) -> Any:
        async with compose.gather() as g:
            g.get("users", "/")
            raise LookupError("in the block")

    async with living(app):
        assert (await ask(app, target="/x")).status == 500
    assert any(isinstance(note.error, LookupError) for note in records.logged)


def test_a_handler_must_be_async() -> None:
    app, _ = gateway()
    with pytest.raises(TypeError, match="async function"):

        @app.compose("/x")
        def x(compose: Any) -> Any:
            return 1


async def test_an_unknown_upstream_is_a_500_and_its_record_names_the_known_ones(autojump_clock: MockClock) -> None:
    app, records = gateway(users=says(1))

    @app.compose("/x")
    async def x(compose: Any) -> Any:
        async with compose.gather() as g:
            g.get("userz", "/")

    async with living(app):
        answer = await ask(app, target="/x")
    assert answer.status == 500
    assert b"userz" not in answer.body
    assert "users" in records.logged[0].message


async def test_a_handler_may_return_a_status_and_headers_as_quarts_views_do(autojump_clock: MockClock) -> None:
    app, records = gateway(users=says(1))

    @app.compose("/created")
    async def created(compose: Any) -> Any:
        return {"x": 1}, 201, {"Location": "/x/1"}

    @app.compose("/odd")
    async def odd(compose: Any) -> Any:
        return 1, 2, 3, 4

    async with living(app):
        answer = await ask(app, target="/created")
        assert (answer.status, answer.json, answer["location"]) == (201, {"x": 1}, "/x/1")
        assert (await ask(app, target="/odd")).status == 500
    assert isinstance(records.logged[0].error, TypeError)


async def test_an_invalid_header_of_a_handler_is_left_out_and_recorded(autojump_clock: MockClock) -> None:
    app, records = gateway(users=says(1))

    @app.compose("/r")
    async def odd(compose: Any) -> Any:
        return 1, 200, [("X-Is", 5), ("X-None", None), ("X-Lines", "a\r\nb: c"), ("X-Nul", "\0"), ("X-Half", "\ud800")]

    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer["x-is"]) == (200, "5")
    assert not {"x-none", "x-lines", "x-nul", "x-half", "b"} & {name for name, _ in answer.headers}
    messages = [event for event in records.events if isinstance(event, LogMessage)]
    assert [event.fields["header"] for event in messages] == ["x-lines", "x-nul", "x-half"]
    assert {(event.level, event.event) for event in messages} == {("info", "header.left-out")}


async def test_forwarded_credentials_keep_the_response_out_of_shared_caches(autojump_clock: MockClock) -> None:
    app, _ = gateway(users=says(1, headers={"cache-control": "public, max-age=60"}))

    @app.compose("/mine")
    async def mine(compose: Any) -> Any:
        async with compose.gather() as g:
            own = g.get("users", "/", headers={"cookie": "a=1"})
        return own.value

    async with living(app):
        answer = await ask(app, target="/mine")
    assert (answer["cache-control"], answer["vary"]) == ("private, max-age=60", "Accept, Cookie")
