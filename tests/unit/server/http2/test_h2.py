"""An HTTP/2 connection in memory: its responses, and which end (stream, connection, drain) ends which requests."""

from __future__ import annotations

from typing import Any

import h2.errors
import pytest
import trio

from tests.support.server.h2_connections import answer, h2_connected, hello, read_all
from umbel.server.asgi import CANCELS
from umbel.server.limits.server_limits import Limits
from umbel.server.phase import Phase

MockClock = trio.testing.MockClock
Codes = h2.errors.ErrorCodes


async def test_requests_are_answered_on_their_streams_in_any_order(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(float(scope["query_string"] or 0))
        await answer(send, scope["path"].encode())

    async with h2_connected(serve) as here:
        slow = await here.client.request(path="/slow?3")
        quick = await here.client.request(path="/quick?1")
        assert (await here.client.answer(quick)).body == b"/quick"
        assert trio.current_time() == pytest.approx(1)
        assert (await here.client.answer(slow)).body == b"/slow"
        assert trio.current_time() == pytest.approx(3)


async def test_the_scope_is_what_asgi_promises(autojump_clock: MockClock) -> None:
    scopes: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await answer(send, b"")

    crumbs = [("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")]
    async with h2_connected(serve, root_path="/root") as here:
        here.state.lifespan_state["pool"] = 1
        await here.client.fetch("GET", "/caf%C3%A9?q=%20", crumbs)
    (scope,) = scopes
    assert (scope["type"], scope["http_version"], scope["method"]) == ("http", "2", "GET")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/café", b"/caf%C3%A9", b"q=%20")
    assert (scope["scheme"], scope["root_path"], scope["state"]) == ("http", "/root", {"pool": 1})
    assert (scope["client"], scope["server"]) == (("192.0.2.1", 5000), ("192.0.2.2", 80))
    assert scope["headers"] == [(b"host", b"gateway.test"), (b"te", b"trailers"), (b"cookie", b"a=1; b=2")]
    assert scope["extensions"].keys() == {"http.response.trailers", "http.response.early_hint", CANCELS}


async def test_a_body_is_received_whole_before_the_disconnect(autojump_clock: MockClock) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await read_all(receive))
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.append(await receive())

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await answer(send, b"done")

    async with h2_connected(serve) as here:
        stream = await here.client.request("POST", end=False)
        for part in (b"one ", b"two ", b""):
            await here.client.data(stream, part, end=not part)
        assert (await here.client.answer(stream)).body == b"done"
    assert heard == [b"one two ", {"type": "http.disconnect"}]


async def test_head_204_trailers_and_hints_are_sent_as_over_http_1(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/none":
            await answer(send, b"", 204, [(b"content-length", b"3")])
        elif scope["path"] == "/trailers":
            await send({"type": "http.response.early_hint", "links": [b"</style>"]})
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            await send({"type": "http.response.body", "body": b"end"})
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]})
        else:
            await answer(send, b"12345", 200, [(b"content-length", b"5"), (b"Connection", b"close")])

    async with h2_connected(serve) as here:
        head = await here.client.fetch("HEAD")
        assert (head.body, head["content-length"]) == (b"", "5")
        assert "connection" not in dict(head.headers)
        none = await here.client.fetch(path="/none")
        assert (none.status, none.body) == (204, b"")
        trailers = await here.client.fetch(path="/trailers", headers=[("te", "trailers")])
        assert (trailers.body, trailers.trailers, trailers.informational) == (b"partend", [("x-sum", "7")], [103])


async def test_100_is_sent_when_the_application_reads_the_body(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/reads":
            await read_all(receive)
        await answer(send, b"")

    async with h2_connected(serve) as here:
        stream = await here.client.request("POST", "/reads", [("expect", "100-continue")], end=False)
        while not here.client.answers[stream].informational:
            assert await here.client.receive()
        await here.client.data(stream, b"x", end=True)
        assert (await here.client.answer(stream)).status == 200
        stream = await here.client.request("POST", "/answers", [("expect", "100-continue")], end=False)
        assert (await here.client.answer(stream)).informational == []


async def test_a_reset_stream_cancels_only_its_application(
    autojump_clock: MockClock,
) -> None:
    ended: dict[str, Any] = {}

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep(10)
            await answer(send, b"slept")
        except trio.Cancelled as cancelled:
            ended[scope["path"]] = (trio.current_time(), cancelled.reason)
            raise

    async with h2_connected(serve) as here:
        left = await here.client.request(path="/left")
        stays = await here.client.request(path="/stays")
        await trio.sleep(1)
        here.client.h2.reset_stream(left, Codes.CANCEL)
        await here.client.flush()
        assert (await here.client.answer(stays)).body == b"slept"
    assert ended == {"/left": (1, "client-gone")}
    assert here.records.logged == []


async def test_an_application_in_receive_gets_a_disconnect_and_may_clean_up(
    autojump_clock: MockClock,
) -> None:
    ended: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        ended.append(await receive())
        await trio.sleep(1)
        ended.append(trio.current_time())
        with pytest.raises(OSError, match="the client has gone"):
            await answer(send, b"")

    async with h2_connected(serve) as here:
        stream = await here.client.request()
        await trio.testing.wait_all_tasks_blocked()
        here.client.h2.reset_stream(stream, Codes.CANCEL)
        await here.client.flush()
        await trio.sleep(2)
    assert ended == [{"type": "http.disconnect"}, 1]


async def test_a_connection_that_ends_ends_all_its_requests(autojump_clock: MockClock) -> None:
    reasons: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            reasons.append(cancelled.reason)
            raise

    async with h2_connected(serve) as here:
        for _ in range(5):
            await here.client.request()
        await trio.testing.wait_all_tasks_blocked()
        await here.client.stream.aclose()
        await here.over.wait()
    assert reasons == ["client-gone"] * 5
    assert trio.current_time() == 0


async def test_a_content_length_without_a_body_is_refused(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"fine")

    async with h2_connected(serve) as here:
        refused = await here.client.fetch(headers=[("content-length", "5")])
        assert (refused.status, refused["content-type"]) == (400, "application/problem+json")
        assert (await here.client.fetch(headers=[("content-length", "0")])).status == 200


async def test_a_failed_application_gives_500_before_its_head_and_a_reset_after(
    autojump_clock: MockClock,
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        if scope["path"] != "/silent":
            raise ValueError("secret")

    async with h2_connected(serve) as here:
        early = await here.client.fetch(path="/early")
        assert (early.status, early["content-type"]) == (500, "application/problem+json")
        assert b"secret" not in early.body
        late = await here.client.fetch(path="/late")
        assert (late.status, late.body, late.reset) == (200, b"part", Codes.INTERNAL_ERROR)
        assert (await here.client.fetch(path="/silent")).status == 500
    assert [note.event for note in here.records.logged] == ["request.crashed"] * 3
    assert "ValueError" in here.records.logged[0].message
    assert "test_h2.py" in here.records.logged[0].message


@pytest.mark.parametrize("length", [b"3", b"5"])
async def test_a_response_with_a_wrong_content_length_gives_500(autojump_clock: MockClock, length: bytes) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"four", 200, [(b"content-length", length)])

    async with h2_connected(serve) as here:
        assert (await here.client.fetch()).status == 500
    assert [record.status for record in here.records.requests] == [500]


@pytest.mark.parametrize("length", [b"5", b"10"])
async def test_a_second_part_over_the_content_length_resets_the_stream(
    autojump_clock: MockClock, length: bytes
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"four", "more_body": True})
        await send({"type": "http.response.body", "body": b"four"})

    async with h2_connected(serve) as here:
        stream = await here.client.request()
        assert (await here.client.answer(stream)).reset == Codes.INTERNAL_ERROR
    (record,) = here.records.requests
    assert (record.status, record.kind, record.bytes_sent) == (200, "internal", 4)


async def test_malformed_response_fields_are_an_application_error(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"", 200, [(b"x-split", b"a\r\nb: c")])

    async with h2_connected(serve) as here:
        assert (await here.client.fetch()).status == 500
    assert len(here.records.logged) == 1


async def test_requests_over_max_in_flight_get_503_at_once(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1)
        await answer(send, b"served")

    async with h2_connected(serve, Limits(max_in_flight=2)) as here:
        streams = [await here.client.request() for _ in range(3)]
        shed = await here.client.answer(streams[2])
        assert (shed.status, shed["retry-after"], trio.current_time()) == (503, "1", 0)
        assert [(await here.client.answer(stream)).body for stream in streams[:2]] == [b"served"] * 2
    assert [(record.status, record.kind) for record in here.records.requests] == [(503, "overloaded")]


async def test_a_drain_sends_goaway_and_finishes_requests_in_flight(
    autojump_clock: MockClock,
) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(float(scope["query_string"]))
        await answer(send, b"done")

    async with h2_connected(serve, Limits(drain_idle=2)) as here:
        long = await here.client.request(path="/?5")
        await trio.testing.wait_all_tasks_blocked()
        drain(here.state)
        while not here.client.goaway:
            assert await here.client.receive()
        assert here.client.goaway == [0]
        assert here.state.in_flight == 1
        late = await here.client.request(path="/?0")
        assert (await here.client.answer(late)).body == b"done"
        await trio.sleep(3)
        refused = await here.client.request(path="/?0")
        assert (await here.client.answer(refused)).reset == Codes.REFUSED_STREAM
        assert (await here.client.answer(long)).body == b"done"
        await here.client.ended()
        assert trio.current_time() == pytest.approx(5)


def drain(state: Any) -> None:
    state.phase.value = Phase.DRAINING
    for connection in tuple(state.open):
        connection.drain(trio.current_time() + state.limits.drain_idle)


async def test_an_idle_connection_of_a_draining_server_ends_after_drain_idle(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, Limits(drain_idle=2), keep_alive_timeout=60) as here:
        await here.client.fetch()
        drain(here.state)
        await here.client.ended()
        assert trio.current_time() == pytest.approx(2)
        assert here.client.goaway == [0, 0]


async def test_a_client_that_sends_goaway_still_gets_its_responses(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(3)
        await answer(send, b"late")

    async with h2_connected(serve) as here:
        stream = await here.client.request()
        await here.client.stream.send_all(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
        assert (await here.client.answer(stream)).body == b"late"
        await here.client.ended()
        assert trio.current_time() == pytest.approx(3)


async def test_a_connection_leaves_after_keep_alive_max_requests(autojump_clock: MockClock) -> None:
    async with h2_connected(hello, keep_alive_max_requests=3) as here:
        for _ in range(3):
            assert (await here.client.fetch()).status == 200
        await here.client.ended()
        assert here.client.goaway[0] == 0
