"""The server over sockets: empty lines before requests, malformed HTTP/2 requests, and requests in flight at a stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h2.errors
import hpack
import hypercorn.trio
import pytest
import trio
from hyperframe.frame import DataFrame, HeadersFrame
from quart import request

from tests.support.logs.records import Records
from tests.support.server.h2_client import Answer, H2Client, h2_client
from tests.support.server.h2_connections import App, answer, hello, read_all
from tests.support.server.raw_client import converse
from tests.support.server.serving import connected, serving
from umbel.gateway.app import Umbel
from umbel.server import Limits, hypercorn_config, serve

Codes = h2.errors.ErrorCodes

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
KEPT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POSTED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"


# Empty lines before a request (RFC 9112 section 2.2).


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("before", [b"", KEPT, POSTED], ids=["first", "after a GET", "after a POST"])
async def test_up_to_16_empty_lines_before_a_request_are_ignored(count: int, before: bytes) -> None:
    app = App(hello)
    async with serving(app) as port:
        heard = await converse(port, before + b"\r\n" * count + CLOSE, methods=["POST" if before == POSTED else "GET"])
    assert heard.statuses == [200] * (2 if before else 1)
    assert app.recorder.requests == []


async def test_empty_lines_that_arrive_byte_by_byte_are_ignored() -> None:
    async with serving(App(hello)) as port:
        assert (await converse(port, b"\r", b"\n", b"\r", b"\n\r", b"\n" + CLOSE)).statuses == [200]


@pytest.mark.parametrize("lines", [b"\r\n" * 17, b"\n" * 2, b"\r\r\n", b" \r\n", b"\r\nx\r\n"])
async def test_too_many_or_malformed_empty_lines_are_refused(lines: bytes) -> None:
    app = App(hello)
    async with serving(app) as port:
        assert (await converse(port, lines + CLOSE)).statuses == [400]
    assert [record.status for record in app.recorder.requests] == [400]


@pytest.mark.parametrize("before", [b"", KEPT], ids=["first", "later"])
async def test_a_client_that_sends_only_empty_lines_is_closed_at_the_head_timeout(before: bytes) -> None:
    app = App(hello)
    app.limits = Limits(head_timeout=0.2)  # type: ignore[attr-defined]
    async with serving(app, keep_alive_timeout=600) as port, connected(port) as client:
        if before:
            assert (await client.request("GET", "/")).status == 200
        await client.stream.send_all(b"\r\n" * 3)
        with trio.fail_after(5):
            assert await client.closed_by_server()
    assert app.recorder.events == []


# A malformed request of HTTP/2 is an error of its stream (RFC 9113 section 8.1.1).

Fields = list[tuple[bytes, bytes]]
HEAD: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
EXTENDED: Fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":authority", b"a")]


def without(name: bytes) -> Fields:
    return [field for field in HEAD if field[0] != name]


MALFORMED: dict[str, Fields] = {
    "an upper-case name": [*HEAD, (b"X-Upper", b"1")],
    "an empty name": [*HEAD, (b"", b"1")],
    "a space in a name": [*HEAD, (b"x y", b"1")],
    "a colon in a name": [*HEAD, (b"x:y", b"1")],
    "a byte over 0x7f in a name": [*HEAD, (b"x\xff", b"1")],
    "a NUL in a value": [*HEAD, (b"x", b"a\0b")],
    "a line end in a value": [*HEAD, (b"x", b"a\r\nb: c")],
    "a space before a value": [*HEAD, (b"x", b" a")],
    "a tab behind a value": [*HEAD, (b"x", b"a\t")],
    "connection": [*HEAD, (b"connection", b"close")],
    "keep-alive": [*HEAD, (b"keep-alive", b"timeout=5")],
    "proxy-connection": [*HEAD, (b"proxy-connection", b"close")],
    "transfer-encoding": [*HEAD, (b"transfer-encoding", b"chunked")],
    "upgrade": [*HEAD, (b"upgrade", b"h2c")],
    "te: gzip": [*HEAD, (b"te", b"gzip")],
    "no :method": without(b":method"),
    "no :scheme": without(b":scheme"),
    "no :path": without(b":path"),
    "an empty :path": [*without(b":path"), (b":path", b"")],
    "an empty list": [],
    "two of :path": [*HEAD, (b":path", b"/b")],
    "two of :method": [(b":method", b"GET"), *HEAD],
    ":status in a request": [*HEAD, (b":status", b"200")],
    ":status 100 in a request": [(b":status", b"100"), *HEAD],
    "an unknown pseudo-header field": [*HEAD, (b":unknown", b"1")],
    "a pseudo-header field behind a field": [*without(b":path"), (b"x", b"1"), (b":path", b"/")],
    ":protocol of a GET": [*HEAD, (b":protocol", b"websocket")],
    "an extended CONNECT without :path": EXTENDED,
    "a Content-Length that is no number": [*HEAD, (b"content-length", b"x")],
    "a Content-Length of a request without a body": [*HEAD, (b"content-length", b"5")],
    "two of Content-Length": [*HEAD, (b"content-length", b"0"), (b"content-length", b"0")],
    "a control character in :path": [*without(b":path"), (b":path", b"/a\x01")],
}
CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
REFUSED: dict[str, tuple[int, Fields]] = {
    "two hosts": (400, [*HEAD, (b"host", b"b")]),
    "no host": (400, without(b":authority")),
    "no path in :path": (400, [*without(b":path"), (b":path", b"a")]),
    "a list over max_head": (431, [*HEAD, (b"x", b"v" * 20_000)]),
    "fields over max_fields": (431, [*HEAD, *[(b"x", b"1")] * 101]),
    "a target over max_target": (414, [*without(b":path"), (b":path", b"/" + b"a" * 9000)]),
}


class Held:
    """An application that answers a POST with its body, and ``/held`` after the event ``go_on``."""

    def __init__(self) -> None:
        self.go_on = trio.Event()
        self.app = App(self._serve)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            await self.go_on.wait()
        await answer(send, b"hello" if scope["method"] == "GET" else await read_all(receive))


@asynccontextmanager
async def with_another_stream() -> AsyncIterator[tuple[Held, H2Client, hpack.Encoder]]:
    """A connection with a request in flight. After the block that request and a new one must be answered."""
    held = Held()
    async with serving(held.app) as port, h2_client(port) as client:
        other = await client.request(path="/held")
        encoder = client.h2.encoder
        with trio.fail_after(10):
            yield held, client, encoder
            held.go_on.set()
            assert (await client.answer(other)).body == b"hello"
            fields = [("x-indexed", "1"), ("x-late", "in step")]
            assert (await client.fetch(headers=fields)).status == 200
            assert client.goaway == []
    assert [note for note in held.app.recorder.logged if note.level != "info"] == []


def begun(client: H2Client) -> int:
    """Open a stream in h2's state without sending its head, which the test then sends as raw frames."""
    stream = client.h2.get_next_available_stream_id()
    client.h2._begin_new_stream(stream, h2.connection.AllowedStreamIDs.ODD)
    client.h2.streams[stream].state_machine.process_input(h2.stream.StreamInputs.SEND_HEADERS)
    client.answers[stream] = Answer()
    return stream


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "with a body to come"])
async def test_a_malformed_head_resets_only_its_stream(case: str, complete: bool) -> None:
    if case == "a Content-Length of a request without a body" and not complete:
        return
    async with with_another_stream() as (held, client, encoder):
        # The server must decode the whole block, since it adds this field to the dynamic table for later requests.
        block = encoder.encode([*MALFORMED[case], (b"x-indexed", b"1")])
        stream = begun(client)
        flags = ["END_HEADERS", "END_STREAM"] if complete else ["END_HEADERS"]
        await client.frames(HeadersFrame(stream, data=block, flags=flags))
        reply = await client.answer(stream)
        assert (reply.status, reply.reset) == (400, Codes.PROTOCOL_ERROR)
    if case in CONNECTION_SPECIFIC:
        assert f"HTTP/2 does not allow the header field {case}; leave it out." in reply.body.decode()
    (record,) = held.app.recorder.requests
    assert (record.status, record.request.request_id) == (400, reply["x-request-id"])


@pytest.mark.parametrize("case", REFUSED)
async def test_a_well_formed_head_that_is_refused_gets_a_response_on_its_stream(case: str) -> None:
    status, fields = REFUSED[case]
    async with with_another_stream() as (held, client, _):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, fields, end_stream=True)
        client.answers[stream] = Answer()
        await client.flush()
        reply = await client.answer(stream)
        assert (reply.status, reply.ended) == (status, True)
    assert [record.status for record in held.app.recorder.requests] == [status]


@pytest.mark.parametrize("length", [3, 8])
async def test_a_body_of_another_length_than_content_length_resets_its_stream(length: int) -> None:
    async with with_another_stream() as (_, client, _):
        stream = await client.request("POST", headers=[("content-length", str(length))], end=False)
        await client.frames(DataFrame(stream, data=b"hello", flags=["END_STREAM"]))
        reply = await client.answer(stream)
        assert (reply.status, reply.reset) == (400, Codes.PROTOCOL_ERROR)


@pytest.mark.parametrize("trailers", [[(b":path", b"/")], [(b"Upper", b"1")], [(b"connection", b"close")]])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_malformed_trailer_section_resets_its_stream(trailers: Fields, ends: bool) -> None:
    async with with_another_stream() as (_, client, encoder):
        stream = await client.request("POST", end=False)
        await client.frames(DataFrame(stream, data=b"hello"))
        flags = ["END_HEADERS", "END_STREAM"] if ends else ["END_HEADERS"]
        await client.frames(HeadersFrame(stream, data=encoder.encode([*trailers, (b"x-indexed", b"1")]), flags=flags))
        reply = await client.answer(stream)
        assert (reply.status, reply.reset) == (400, Codes.PROTOCOL_ERROR)


async def test_a_valid_trailer_section_is_accepted() -> None:
    async with with_another_stream() as (_, client, encoder):
        stream = await client.request("POST", headers=[("content-length", "5")], end=False)
        await client.frames(DataFrame(stream, data=b"hello"))
        block = encoder.encode([(b"x-sum", b"1")])
        await client.frames(HeadersFrame(stream, data=block, flags=["END_HEADERS", "END_STREAM"]))
        assert (await client.answer(stream)).body == b"hello"


async def test_a_header_block_that_cannot_be_decompressed_ends_the_connection() -> None:
    app = App(hello)
    async with serving(app) as port, h2_client(port) as client:
        await client.frames(HeadersFrame(1, data=b"\xff\xff\xff\xff\x0f", flags=["END_HEADERS", "END_STREAM"]))
        with trio.fail_after(10):
            await client.ended()
        assert client.goaway[-1:] == [Codes.COMPRESSION_ERROR]
    assert [record.status for record in app.recorder.requests] == [400]


async def test_the_hundredth_malformed_request_ends_its_connection() -> None:
    app = App(hello)
    async with serving(app) as port, h2_client(port) as client:
        flags = ["END_HEADERS", "END_STREAM"]
        await client.frames(*[HeadersFrame(begun(client), data=b"\x82", flags=flags) for _ in range(99)])
        with trio.fail_after(10):
            for stream in client.answers:
                assert (await client.answer(stream)).status == 400
            assert client.goaway == []
            await client.frames(HeadersFrame(begun(client), data=b"\x82", flags=flags))
            await client.ended()
        assert client.goaway
    assert [record.status for record in app.recorder.requests] == [400] * 100


# Requests in flight at the end of the graceful timeout.

GRACE_S = 0.2


def endless(records: Records, started: trio.MemorySendChannel[str]) -> Umbel:
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.get("/silent")
    async def silent() -> str:
        started.send_nowait("silent")
        await trio.sleep_forever()
        raise AssertionError

    @app.get("/begun")
    async def begun_() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            started.send_nowait("begun")
            await trio.sleep_forever()

        return parts(), {"content-type": "text/plain"}

    @app.post("/upload")
    async def upload() -> str:
        started.send_nowait("upload")
        await request.get_data()
        raise AssertionError

    return app


@asynccontextmanager
async def stopping(app: Any, stock: bool) -> AsyncIterator[tuple[int, trio.Event]]:
    """Serve an application; yield its port and the event that stops the server."""
    config = hypercorn_config(bind=["127.0.0.1:0"])
    config.graceful_timeout = GRACE_S
    config.errorlog = None
    stop = trio.Event()
    run = partial(hypercorn.trio.serve if stock else serve, app, config, shutdown_trigger=stop.wait)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(run)
            yield int(address.rpartition(":")[2]), stop


LAUNCHERS = pytest.mark.parametrize("stock", [False, True], ids=["umbel serve", "stock hypercorn"])


@LAUNCHERS
@pytest.mark.parametrize("path", ["silent", "upload"])
async def test_an_unanswered_request_gets_503_at_the_graceful_timeout(path: str, stock: bool) -> None:
    records = Records()
    send, receive = trio.open_memory_channel[str](1)
    async with stopping(endless(records, send), stock) as (port, stop), connected(port) as client:
        fields = [("content-length", "100000")] if path == "upload" else []
        await client.send("POST" if path == "upload" else "GET", f"/{path}", fields)
        await receive.receive()
        stop.set()
        reply = await client.reply()
        assert (reply.status, reply["connection"], reply["content-type"]) == (503, "close", "application/problem+json")
        assert int(reply["retry-after"]) >= 1
        assert await client.closed_by_server()
    (record,) = records.requests
    assert (record.status, record.kind, record.bytes_sent) == (503, "cancelled", len(reply.body))
    assert record.request.request_id == reply["x-request-id"] == reply.json["request_id"]


@LAUNCHERS
async def test_an_unanswered_stream_gets_503_at_the_graceful_timeout(stock: bool) -> None:
    records = Records()
    send, receive = trio.open_memory_channel[str](3)
    async with stopping(endless(records, send), stock) as (port, stop), h2_client(port) as client:
        streams = [await client.request(path=path) for path in ("/silent", "/begun", "/silent")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.ended)
            for _ in streams:
                await receive.receive()
            stop.set()
    answers = [client.answers[stream] for stream in streams]
    assert [(answer.status, answer.ended) for answer in answers] == [(503, True), (200, False), (503, True)]
    assert answers[0]["retry-after"] == "1"
    assert sorted((record.status, record.kind) for record in records.requests) == [
        (200, "cancelled"),
        (503, "cancelled"),
        (503, "cancelled"),
    ]
    ids = {record.request.request_id for record in records.requests}
    assert {answer["x-request-id"] for answer in answers} == ids


@LAUNCHERS
async def test_a_response_in_its_body_is_cut_and_recorded_at_the_graceful_timeout(stock: bool) -> None:
    records = Records()
    send, receive = trio.open_memory_channel[str](1)
    async with stopping(endless(records, send), stock) as (port, stop), connected(port) as client:
        await client.send("GET", "/begun")
        await receive.receive()
        stop.set()
        received = b"".join([part async for part in client.stream])
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"first\r\n")
    (record,) = records.requests
    assert (record.status, record.kind, record.bytes_sent) == (200, "cancelled", 5)
    assert "cut" in record.detail


UPGRADE = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@LAUNCHERS
async def test_a_websocket_before_its_accept_gets_503_at_the_graceful_timeout(stock: bool) -> None:
    records, started = Records(), trio.Event()
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.websocket("/ws")
    async def never() -> None:
        started.set()
        await trio.sleep_forever()

    async with stopping(app, stock) as (port, stop), connected(port) as client:
        await client.send("GET", "/ws", UPGRADE)
        await started.wait()
        stop.set()
        received = b"".join([part async for part in client.stream])
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in received
    (record,) = records.requests
    assert (record.status, record.kind) == (503, "cancelled")
    assert record.request.request_id.encode() in received


async def test_a_cancelled_asgi_application_has_one_record_that_agrees_with_the_503() -> None:
    started = trio.Event()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        started.set()
        await trio.sleep_forever()

    app = App(silent)
    async with stopping(app, False) as (port, stop), connected(port) as client:
        await client.send("GET", "/x")
        await started.wait()
        stop.set()
        reply = await client.reply()
    (record,) = app.recorder.requests
    assert (reply.status, record.status, record.request.request_id) == (503, 503, reply["x-request-id"])


async def test_a_client_that_does_not_read_the_503_delays_the_stop_by_at_most_2_s() -> None:
    started = trio.Event()

    async def does_not_read(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        started.set()
        await trio.sleep_forever()

    async with stopping(App(does_not_read), False) as (port, stop), connected(port) as client:
        await client.send("POST", "/x", [("content-length", "1000000")])
        await client.stream.send_all(bytes(100_000))
        await started.wait()
        began = trio.current_time()
        stop.set()
    assert trio.current_time() - began < GRACE_S + 2
