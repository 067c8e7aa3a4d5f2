"""Each request has one record that agrees with its response; a client mistake is no error; a crash is logged once."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from hyperframe.frame import GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from quart import Response

from tests.support.logs.records import Records
from tests.support.server.h2_client import h2_client
from tests.support.server.h2_connections import App
from tests.support.server.raw_client import parse_responses
from tests.support.server.serving import serving
from umbel.gateway.app import Umbel

PROTOCOLS = pytest.mark.parametrize("protocol", ["1.1", "2"])


@dataclass
class Seen:
    """A response as its client received it."""

    status: int
    request_id: str
    body: bytes
    whole: bool


async def see(port: int, protocol: str, path: str, method: str = "GET") -> Seen:
    """Send a request and read to the end of the response or of the connection."""
    with trio.fail_after(10):
        if protocol == "2":
            async with h2_client(port) as client:
                reply = await client.answer(await client.request(method, path))
                return Seen(reply.status, dict(reply.headers).get("x-request-id", ""), reply.body, reply.ended)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            received = b"".join([part async for part in stream])
    try:
        (reply,) = parse_responses(received, [method]).replies
    except Exception:  # noqa: BLE001 - h11 has several exceptions for an incomplete response
        head, _, rest = received.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        return Seen(int(head[9:12]), fields.get(b"x-request-id", b"").decode(), rest, whole=False)
    return Seen(reply.status, dict(reply.headers).get("x-request-id", ""), reply.body, whole=True)


async def failing(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise ValueError("the body failed")


def failing_synchronously() -> Any:
    raise ValueError("the body failed")
    yield b""


class _Swallows:
    """A middleware that drops the application's response for ``/swallowed`` and then raises."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def swallow(message: Any) -> None:
            await trio.lowlevel.checkpoint()

        hidden = scope["type"] == "http" and scope["path"] == "/swallowed"
        await self._app(scope, receive, swallow if hidden else send)
        if hidden:
            raise ValueError("the middleware failed")


def gateway(records: Records) -> Umbel:
    app = Umbel(__name__, recorder=records, static_folder=None)

    @app.get("/plain")
    async def plain() -> Any:
        return failing(), {"content-type": "text/plain"}

    @app.get("/empty-first")
    async def empty_first() -> Any:
        return failing(b""), {"content-type": "text/plain"}

    @app.get("/length")
    async def length() -> Any:
        return failing(), {"content-length": "100"}

    @app.get("/short")
    async def short() -> Any:
        response = Response("four")
        response.headers["content-length"] = "100"
        return response

    @app.get("/generator")
    async def generator() -> Any:
        return failing_synchronously(), 201

    @app.get("/bad-field")
    async def bad_field() -> Any:
        response = Response("x")
        response.headers._list.append(("x-a", "b\x01c\nd"))
        return response

    @app.get("/raises")
    async def raises() -> str:
        raise ValueError("the view failed")

    @app.get("/swallowed")
    async def swallowed() -> str:
        return "never seen"

    @app.compose("/composed")
    async def composed(compose: Any) -> Any:
        return Response(failing())

    @app.get("/later")
    async def later() -> Any:
        return failing(b"first"), {"content-type": "text/plain"}

    @app.compose("/composed-later")
    async def composed_later(compose: Any) -> Any:
        return Response(failing(b"first"))

    app.asgi_app = _Swallows(app.asgi_app)  # type: ignore[method-assign]
    return app


async def one_record(records: Records) -> Any:
    with trio.fail_after(5):
        while not records.requests:
            await trio.testing.wait_all_tasks_blocked(0.001)
    await trio.testing.wait_all_tasks_blocked(0.01)
    (record,) = records.requests
    return record


BEFORE = ["plain", "length", "short", "generator", "raises", "swallowed", "composed"]


@PROTOCOLS
@pytest.mark.parametrize("path", BEFORE)
async def test_a_response_that_fails_before_its_first_byte_is_a_500_with_one_record(path: str, protocol: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        seen = await see(port, protocol, f"/{path}")
        record = await one_record(records)
    assert (seen.status, seen.whole, record.status, record.kind) == (500, True, 500, "internal")
    assert seen.request_id == record.request.request_id
    assert [note.event for note in records.logged] == ["request.crashed"]


@PROTOCOLS
async def test_an_invalid_field_value_removes_its_field_and_the_response_is_sent(protocol: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        seen = await see(port, protocol, "/bad-field")
        record = await one_record(records)
    assert (seen.status, seen.whole, record.status, record.kind) == (200, True, 200, None)


@PROTOCOLS
@pytest.mark.parametrize("path", ["later", "composed-later"])
async def test_a_response_that_fails_in_its_body_is_cut_and_recorded_as_cut(path: str, protocol: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        seen = await see(port, protocol, f"/{path}")
        record = await one_record(records)
    assert (seen.status, seen.whole) == (200, False)
    assert b"first" in seen.body
    assert (record.status, record.kind, record.bytes_sent, record.broke_off) == (200, "internal", 5, True)
    assert "cut off before its end" in record.detail
    assert seen.request_id == record.request.request_id
    assert [note.event for note in records.logged] == ["request.crashed"]


@pytest.mark.parametrize("path", ["later", "composed-later"])
async def test_a_failed_response_delimited_by_the_close_ends_with_a_reset(path: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            async for _ in stream:
                pass
        record = await one_record(records)
    assert (record.status, record.kind, record.bytes_sent) == (200, "internal", 5)


@PROTOCOLS
@pytest.mark.parametrize("path", ["plain", "later", "generator", "raises"])
async def test_the_record_of_a_head_request_agrees_with_the_response(path: str, protocol: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        seen = await see(port, protocol, f"/{path}", "HEAD")
        record = await one_record(records)
    assert (seen.status, seen.request_id) == (record.status, record.request.request_id)


@PROTOCOLS
async def test_a_response_timeout_before_the_first_byte_is_a_504(protocol: str) -> None:
    records = Records()
    app = Umbel(__name__, recorder=records, static_folder=None)

    async def never() -> AsyncIterator[bytes]:
        await trio.sleep_forever()
        yield b""

    @app.get("/late")
    async def late() -> Any:
        response = Response(never())
        response.timeout = 0.05
        return response

    async with serving(app) as port:
        seen = await see(port, protocol, "/late")
        record = await one_record(records)
    assert (seen.status, record.status, record.kind) == (504, 504, "timeout")
    assert seen.request_id == record.request.request_id
    assert records.logged == []


@PROTOCOLS
async def test_a_response_timeout_after_the_first_byte_cuts_the_response_without_a_crash(protocol: str) -> None:
    records = Records()
    app = Umbel(__name__, recorder=records, static_folder=None)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"first"
        await trio.sleep_forever()

    @app.get("/late")
    async def late() -> Any:
        response = Response(stalls())
        response.timeout = 0.05
        return response

    async with serving(app) as port:
        seen = await see(port, protocol, "/late")
        record = await one_record(records)
    assert (seen.status, seen.whole, record.status, record.kind) == (200, False, 200, "timeout")
    assert records.logged == []


# Other ASGI applications, for which the server makes the records.


def start(*fields: tuple[bytes, bytes]) -> Any:
    return {"type": "http.response.start", "status": 200, "headers": list(fields)}


def body(data: bytes, more: bool = False) -> Any:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: Any, raises: bool = True) -> Any:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if raises:
            raise ValueError("the application failed")

    return serve


@PROTOCOLS
@pytest.mark.parametrize(
    "serve",
    [
        sends(),
        sends(start()),
        sends(raises=False),
        sends(start(), raises=False),
        sends(start((b"content-length", b"3")), body(b"four")),
        sends(start((b"x", b"a\r\nb")), body(b"")),
    ],
)
async def test_an_asgi_application_that_fails_before_its_first_byte_has_one_record(serve: Any, protocol: str) -> None:
    app = App(serve)
    async with serving(app) as port:
        seen = await see(port, protocol, "/x")
        record = await one_record(app.recorder)
    assert (seen.status, record.status, record.request.path) == (500, 500, "/x")
    assert seen.request_id == record.request.request_id
    assert len(app.recorder.logged) == 1


@PROTOCOLS
@pytest.mark.parametrize("raises", [True, False])
async def test_an_asgi_application_that_fails_in_its_body_has_one_record_of_a_cut(protocol: str, raises: bool) -> None:
    app = App(sends(start(), body(b"first", True), raises=raises))
    async with serving(app) as port:
        seen = await see(port, protocol, "/x")
        record = await one_record(app.recorder)
    assert (seen.status, seen.whole) == (200, False)
    assert (record.status, record.kind, record.bytes_sent) == (200, "internal", 5)


@PROTOCOLS
async def test_an_asgi_application_that_answers_has_no_record_of_the_server(protocol: str) -> None:
    app = App(sends(start(), body(b"whole"), raises=False))
    async with serving(app) as port:
        assert (await see(port, protocol, "/x")).whole
    assert app.recorder.events == []


# A client's mistake is no error of the server.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = SettingsFrame(0).serialize()
BROKEN: dict[str, bytes] = {
    "SETTINGS on a stream": b"\0\0\0\4\0\0\0\0\1",
    "a SETTINGS frame of five bytes": b"\0\0\5\4\0\0\0\0\0" + bytes(5),
    "a WINDOW_UPDATE of zero": WindowUpdateFrame(0, window_increment=1).serialize()[:9] + bytes(4),
    "a WINDOW_UPDATE over the window": WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2,
    "a PING of seven bytes": b"\0\0\7\6\0\0\0\0\0" + bytes(7),
    "a RST_STREAM of an idle stream": RstStreamFrame(7, error_code=8).serialize(),
    "DATA of an idle stream": b"\0\0\1\0\0\0\0\0\7x",
    "DATA of stream 0": b"\0\0\1\0\0\0\0\0\0x",
    "a header block that is none": b"\0\0\1\1\5\0\0\0\1\xff",
    "a CONTINUATION of nothing": b"\0\0\0\x09\4\0\0\0\1",
    "an even stream": b"\0\0\1\1\5\0\0\0\2\x82",
    "a frame that is too long": b"\xff\xff\xff\0\0\0\0\0\1",
    "a PUSH_PROMISE": b"\0\0\4\5\4\0\0\0\1\0\0\0\2",
    "a flood of PING": PingFrame(0, b"12345678").serialize() * 600,
    "a flood of RST_STREAM": b"".join(
        b"\0\0\6\1\5" + n.to_bytes(4, "big") + b"\x82\x84\x86\x41\1a" + RstStreamFrame(n, error_code=8).serialize()
        for n in range(1, 801, 2)
    ),
    "GOAWAY with an error": GoAwayFrame(0, error_code=1).serialize(),
    "GOAWAY that is too short": b"\0\0\0\7\0\0\0\0\0",
    "zeros": bytes(100),
}


async def give(port: int, data: bytes, patience: float = 0.3) -> None:
    """Send bytes, and read until the server closes the connection, for at most ``patience`` seconds."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            await stream.send_all(data)
            with trio.move_on_after(patience):
                async for _ in stream:
                    pass
        except trio.BrokenResourceError:
            pass


@pytest.mark.parametrize("case", BROKEN)
async def test_a_violation_of_http_2_is_only_an_access_record(case: str) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        await give(port, PREFACE + SETTINGS + BROKEN[case], 0.3 if case.startswith("GOAWAY with") else 20)
    assert records.logged == []
    ends = [record for record in records.requests if record.request.method == ""]
    assert [record.status for record in ends] == ([] if case.startswith("GOAWAY with") else [400])
    assert all(record.status < 500 for record in records.requests)
    assert not any(
        (record.detail or "").rpartition(": ")[2].isdigit() for record in ends
    )  # The detail must not end with a bare error code.


@pytest.mark.parametrize(
    "data", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", b"PRI * HTTP/2.1\r\n\r\n", b"\x16\x03\x01" + bytes(99)]
)
async def test_bytes_that_are_no_http_2_preface_are_an_access_record(data: bytes) -> None:
    records = Records()
    async with serving(gateway(records)) as port:
        await give(port, data)
    assert records.logged == []
    assert [record.status for record in records.requests] in ([400], [505])


@pytest.fixture
def tls(tmp_path: Any) -> tuple[str, str]:
    import trustme

    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


async def test_a_failed_tls_handshake_is_logged_at_most_at_info(tls: tuple[str, str]) -> None:
    records = Records()
    async with serving(gateway(records), certfile=tls[0], keyfile=tls[1]) as port:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(99), b"\x15\x03\x03\0\2\2\x28", b""):
            await give(port, data)
        context = ssl.create_default_context()
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()  # the client does not trust the certificate
        await trio.aclose_forcefully(stream)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for rest in (b"\x17\x03\x03\0\x20" + bytes(32), b"\x15\x03\x03\0\2\2\x28", b""):
            transport = await trio.open_tcp_stream("127.0.0.1", port)
            stream = trio.SSLStream(transport, context, server_hostname="localhost")
            await stream.do_handshake()
            await transport.send_all(rest)  # bytes that are no valid TLS record of this session
            await trio.aclose_forcefully(transport)
    assert [note for note in records.logged if note.level != "info"] == []


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(opcode: int, data: bytes, *, fin: int = 0x80) -> bytes:
    return bytes((fin | opcode, 0x80 | len(data))) + bytes(4) + data


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\x01x",
        masked(3, b"x"),
        masked(1, b"\xff"),
        masked(9, b"x", fin=0),
        masked(0, b"x"),
        masked(0x41, b"x"),
        masked(8, b"x"),
        masked(8, b"\x03\xed"),
        b"\x82\xff" + b"\xff" * 12,
    ],
)
@pytest.mark.parametrize("reads", [True, False])
async def test_a_violation_of_the_websocket_protocol_is_one_access_record(frame: bytes, reads: bool) -> None:
    from quart import websocket

    records = Records()
    app = gateway(records)

    @app.websocket("/ws")
    async def echo() -> None:
        await websocket.accept()
        while reads:
            await websocket.send(await websocket.receive())
        await trio.sleep_forever()

    async with serving(app) as port:
        await give(port, UPGRADE + frame)
    assert [note for note in records.logged if note.level != "info"] == []
    assert [record.status for record in records.requests] == [101]
