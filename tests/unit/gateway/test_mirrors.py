"""Mirrors of a gateway: copies after the answer, which they neither delay nor change, and what is recorded of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tests.support.server.asgi import Answer, ask, living
from tests.support.server.inbound import MemoryRequest
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel
from umbel.gateway.operation.figures import application_figures
from umbel.upstream.mirrors import COPIES_MAX

from .gateways import Function, gateway, says

Clock = trio.testing.MockClock
ALL = {"upstream": "v2", "share": "100%"}


def mirrored(mirror: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    part = {"upstream": "v1", "path": "/part", **({} if mirror is None else {"mirror": mirror}), **keys}
    return {"path": "/r", "calls": {"part": part}}


async def hangs(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


async def breaks(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody listens")


async def slow(request: httpx.Request) -> httpx.Response:
    await trio.sleep(0.1)
    return httpx.Response(200, json=1)


async def asked(app: Umbel, method: str = "GET", fields: list[tuple[str, str]] | None = None) -> Answer:
    request = MemoryRequest(method, "/r", fields=fields or [])
    await request.served_by(app)
    return request.answer


async def test_the_copy_is_sent_after_the_answer_with_the_same_request_id(autojump_clock: Clock) -> None:
    v1, v2 = Function(slow), Function(says(2))
    app, records = gateway(mirrored(ALL), v1=v1, v2=v2)
    async with living(app):
        answer = await asked(app)
        assert (answer.json, answer.complete) == ({"part": 1}, True)
        assert v2.asked == []
        await trio.testing.wait_all_tasks_blocked()
        assert (len(v1.asked), len(v2.asked)) == (1, 1)
    assert v2.target == b"/part"
    assert v2.asked[0].headers["x-request-id"] == v1.asked[0].headers["x-request-id"] == answer["x-request-id"]
    assert records.requests[0].calls[0].value == 1


@pytest.mark.parametrize("fields", [[], [("accept", "application/x-ndjson")]])
async def test_a_request_through_quart_is_copied_once(fields: list[tuple[str, str]], autojump_clock: Clock) -> None:
    v2 = Function(says(2))
    app, _ = gateway(mirrored(ALL), server={"hooks": "all"}, v1=slow, v2=v2)
    async with living(app):
        assert (await ask(app, "GET", "/r", headers=fields)).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert len(v2.asked) == 1


async def test_a_stream_is_copied_after_its_last_line(autojump_clock: Clock) -> None:
    v2 = Function(says(2))
    app, _ = gateway(mirrored(ALL), v1=slow, v2=v2)
    async with living(app):
        answer = await asked(app, fields=[("accept", "application/x-ndjson")])
        assert answer.complete
        await trio.testing.wait_all_tasks_blocked()
        assert len(v2.asked) == 1


@pytest.mark.parametrize("mirror", [hangs, breaks, says(1, status=500)])
async def test_no_answer_is_later_or_other_for_any_mirror(mirror: Any, autojump_clock: Clock) -> None:
    async def durations(keys: dict[str, Any] | None) -> list[tuple[float, bytes]]:
        app, _ = gateway(mirrored(keys), v1=slow, v2=mirror)
        found: list[tuple[float, bytes]] = []
        async with living(app):
            for _ in range(COPIES_MAX + 50):
                started = trio.current_time()
                answer = await asked(app)
                found.append((round(trio.current_time() - started, 9), answer.body))
        return found

    assert await durations(ALL) == await durations(None) == [(0.1, b'{"part":1}')] * (COPIES_MAX + 50)


async def test_a_hanging_mirror_holds_a_bounded_number_of_copies(autojump_clock: Clock) -> None:
    v2 = Function(hangs)
    app, _ = gateway(mirrored(ALL), v1=says(1), v2=v2)
    async with living(app):
        for _ in range(COPIES_MAX + 50):
            await asked(app)
        await trio.testing.wait_all_tasks_blocked()
        runtime = app.gateway_context.require_runtime()
        assert runtime.mirrors.statistics()["v2"].in_flight == len(v2.asked) == COPIES_MAX
        values = application_figures(runtime)[0]["umbel_mirrored_total"]
        assert dict(values)["v2", "overflow"] == 50
        await trio.sleep(6)  # No copy lasts longer than the route's deadline.
        assert runtime.mirrors.statistics()["v2"].in_flight == 0
        assert runtime.mirrors.statistics()["v2"].results["failed"] == COPIES_MAX
    assert v2.cut == COPIES_MAX


async def test_failures_of_copies_are_recorded_for_the_mirror_and_not_in_the_request(autojump_clock: Clock) -> None:
    app, records = gateway(mirrored(ALL), v1=says(1), v2=says(1, status=503))
    async with living(app):
        await asked(app)
        await trio.testing.wait_all_tasks_blocked()
    copied = records.calls[-1]
    assert copied.upstream == "v2"
    assert copied.outcome.failure is not None
    assert copied.outcome.failure.kind is Kind.STATUS
    (request,) = records.requests
    assert (request.completed, request.kind) == (True, None)


async def test_only_the_methods_of_the_mirror_are_copied(autojump_clock: Clock) -> None:
    v2 = Function(says(2))
    writes = mirrored(ALL, method="POST")
    app, _ = gateway(writes, v1=says(1), v2=v2)
    async with living(app):
        await asked(app)
        await trio.testing.wait_all_tasks_blocked()
    assert v2.asked == []
    app, _ = gateway(mirrored({**ALL, "methods": ["POST"]}, method="POST"), v1=says(1), v2=v2)
    async with living(app):
        await asked(app)
        await trio.testing.wait_all_tasks_blocked()
    assert [request.method for request in v2.asked] == ["POST"]


async def test_a_call_that_never_began_has_no_copy(autojump_clock: Clock) -> None:
    v2 = Function(says(2))
    route = mirrored(ALL, when="`false`")
    app, _ = gateway(route, v1=says(1), v2=v2)
    async with living(app):
        await asked(app)
        await trio.testing.wait_all_tasks_blocked()
    assert v2.asked == []


async def test_copies_in_flight_end_when_the_application_stops(autojump_clock: Clock) -> None:
    v2 = Function(hangs)
    app, _ = gateway(mirrored(ALL), v1=says(1), v2=v2)
    started = trio.current_time()
    async with living(app):
        await asked(app)
        await trio.testing.wait_all_tasks_blocked()
    assert (len(v2.asked), v2.cut) == (1, 1)
    assert trio.current_time() == started


async def by_address(app: Umbel, address: str) -> Answer:
    request = MemoryRequest(target="/r", peer=(address, 1))
    await request.served_by(app)
    return request.answer


async def by_address_through_quart(app: Umbel, address: str) -> Answer:
    return await ask(app, "GET", "/r", client=(address, 1))


@pytest.mark.parametrize(("hooks", "by"), [("auto", by_address), ("all", by_address_through_quart)])
async def test_a_split_by_address_makes_the_answer_private(hooks: str, by: Any, autojump_clock: Clock) -> None:
    keys: dict[str, Any] = {"split": {"v2": "50%"}, "split_key": "client.ip"}
    app, _ = gateway(mirrored(None, **keys), server={"hooks": hooks}, v1=says(1), v2=says(2))
    found: dict[str, set[int]] = {}
    async with living(app):
        for number in range(40):
            answer = await by(app, f"192.0.2.{number % 20}")
            assert (answer["cache-control"], answer["vary"]) == ("private", "Accept")
            found.setdefault(f"192.0.2.{number % 20}", set()).add(answer.json["part"])
    assert all(len(each) == 1 for each in found.values())
    assert set().union(*found.values()) == {1, 2}


async def test_a_split_by_a_field_names_it_in_vary(autojump_clock: Clock) -> None:
    keys: dict[str, Any] = {"split": {"v2": "50%"}, "split_key": "headers.x_user"}
    app, _ = gateway(mirrored(None, **keys), v1=says(1), v2=says(2))
    async with living(app):
        answer = await asked(app, fields=[("x-user", "7")])
    assert answer["vary"] == "Accept, X-User"
    assert answer.all("cache-control") == []


async def test_the_address_behind_a_trusted_proxy_decides_a_split(autojump_clock: Clock) -> None:
    keys: dict[str, Any] = {"split": {"v2": "50%"}, "split_key": "client.ip"}
    server = {"trusted_proxies": ["127.0.0.1"]}
    app, _ = gateway(mirrored(None, **keys), server=server, v1=says(1), v2=says(2))
    async with living(app):
        many = [await asked(app, fields=[("x-forwarded-for", f"192.0.2.{n}")]) for n in range(40)]
    assert {answer.json["part"] for answer in many} == {1, 2}
