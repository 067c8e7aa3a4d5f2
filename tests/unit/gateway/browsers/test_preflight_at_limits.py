"""Preflights that a server has no capacity to admit: it answers them with 204, so that a page can read the 503."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.server.asgi import living
from tests.support.server.h2_connections import h2_connected
from tests.support.server.http1 import served
from tests.unit.gateway.gateways import gateway, route, says
from umbel.gateway.app import Umbel

MockClock = trio.testing.MockClock
APP = "https://app.example"
HANG = b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n"
ASKED = f"Host: a\r\nOrigin: {APP}\r\nAccess-Control-Request-Method: PUT\r\n\r\n".encode()
LIMITS = {"max_in_flight": 1, "max_connections": 1, "memory_limit": "1KiB"}


def application(**server: Any) -> tuple[Umbel, Any]:
    routes = (route("/r", methods=["PUT"]), route("/own", cors=False))
    app, records = gateway(*routes, server=server, sections={"cors": {"origins": [APP]}}, up=says(1))

    @app.compose("/hang", deadline=None)
    async def hang(compose: Any) -> None:
        await trio.sleep_forever()

    return app, records


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_preflight_is_answered_with_204_at_a_limit(limit: str, autojump_clock: MockClock) -> None:
    app, records = application(**{limit: LIMITS[limit]})
    async with living(app), served(app, limits=app.limits) as server, server.connected() as first:
        await first.stream.send_all(HANG)
        await trio.sleep(0.1)
        for target, status in ((b"/r", b"204"), (b"/own", b"503")):
            async with server.connected() as client:
                await client.stream.send_all(b"OPTIONS %b HTTP/1.1\r\n" % target + ASKED)
                received = await client.stream.receive_some()
            assert received.startswith(b"HTTP/1.1 %b " % status), received
            assert (b"\r\naccess-control-allow-methods: OPTIONS, PUT\r\n" in received) == (status == b"204")
            assert (b"content-length" in received) == (status == b"503")
        refused = server.state.statistics().refused
    assert 204 not in refused
    assert refused[503] >= 1
    record = next(each for each in records.requests if each.status == 204)
    assert (record.kind, record.detail, record.request.path) == (None, "", "/r")


async def test_many_preflights_of_one_connection_need_no_place(autojump_clock: MockClock) -> None:
    app, _ = application(max_in_flight=1)
    async with living(app), served(app, limits=app.limits) as server, server.connected() as first:
        await first.stream.send_all(HANG)
        await trio.sleep(0.1)
        async with server.connected() as client:
            await client.stream.send_all((b"OPTIONS /r HTTP/1.1\r\n" + ASKED) * 50)
            received = b""
            while received.count(b"\r\n\r\n") < 50:
                received += await client.stream.receive_some()
            assert received.count(b"HTTP/1.1 204 ") == 50
            assert server.state.in_flight == 1


async def test_over_http_2_a_preflight_is_answered_with_204_at_a_limit(autojump_clock: MockClock) -> None:
    app, _ = application(max_in_flight=1)
    asked = [("origin", APP), ("access-control-request-method", "PUT")]
    async with living(app), h2_connected(None, app.limits, app=app) as here:
        await here.client.request(**{":path": "/hang"})
        await trio.sleep(0.1)
        stream = await here.client.request(headers=asked, **{":method": "OPTIONS", ":path": "/r"})
        answer = await here.client.answer(stream)
    fields = dict(answer.headers)
    assert (fields[":status"] if ":status" in fields else str(answer.status), answer.body) == ("204", b"")
    assert (fields["access-control-allow-origin"], fields["access-control-max-age"]) == (APP, "7200")
