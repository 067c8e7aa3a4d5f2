"""The opening handshake of a WebSocket: offers of permessage-deflate, and fields that are refused."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import AcceptConnection, BytesMessage
from wsproto.extensions import PerMessageDeflate

from tests.support.server.h2_connections import h2_connected
from tests.support.server.ws_client import upgrade
from tests.unit.server.websocket.test_websocket import echo, websocket
from umbel.server.http1.head_errors import HeadError
from umbel.server.websocket.handshake import read_opening_handshake

MockClock = trio.testing.MockClock


def opening(extensions: bytes = b"", protocols: bytes = b"") -> Any:
    fields = [(b"sec-websocket-version", b"13")]
    if extensions:
        fields.append((b"sec-websocket-extensions", extensions))
    if protocols:
        fields.append((b"sec-websocket-protocol", protocols))
    return read_opening_handshake(fields, keyed=False)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (b"permessage-deflate", "permessage-deflate"),
        (b" permessage-deflate ; client_max_window_bits", "permessage-deflate"),
        (b"permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"),
        (b'permessage-deflate; server_max_window_bits="12"', "permessage-deflate; server_max_window_bits=12"),
        (
            b"permessage-deflate;client_no_context_takeover;server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (b"x-other; a=b, , permessage-deflate", "permessage-deflate"),
        # The first offer cannot be accepted, the second can.
        (b"permessage-deflate; server_max_window_bits=99, permessage-deflate", "permessage-deflate"),
    ],
)
def test_an_acceptable_offer_of_compression_is_accepted(offer: bytes, answer: str) -> None:
    assert opening(offer).deflate.parameters == answer


@pytest.mark.parametrize(
    "parameters",
    [
        b"server_max_window_bits=99",
        b"server_max_window_bits=abc",
        b"server_max_window_bits",
        b"server_max_window_bits=8",
        b"server_max_window_bits=010",
        b"server_max_window_bits=10;server_max_window_bits=10",
        b"client_max_window_bits=7",
        b"client_max_window_bits=" + b"9" * 5000,
        b"client_no_context_takeover=1",
        b"client_no_context_takeover; client_no_context_takeover",
        b"server_no_context_takeoverx",
        b"unknown",
        b"unknown=1",
    ],
)
async def test_an_offer_that_must_be_declined_opens_a_websocket_without_compression(
    autojump_clock: MockClock, parameters: bytes
) -> None:
    head = upgrade(more=b"Sec-WebSocket-Extensions: permessage-deflate; %b\r\n" % parameters)
    async with websocket(echo, head=head) as here:
        answer = await here.client.stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-extensions" not in answer
    assert here.records.events == []


@pytest.mark.parametrize(
    "field",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate;",
        b"Sec-WebSocket-Extensions: permessage-deflate; =1",
        b"Sec-WebSocket-Extensions: permessage-deflate; a=",
        b"Sec-WebSocket-Extensions: permessage-deflate; a=b=c",
        b'Sec-WebSocket-Extensions: permessage-deflate; a="b',
        b'Sec-WebSocket-Extensions: "permessage-deflate"',
        b"Sec-WebSocket-Extensions: a b",
        b"Sec-WebSocket-Extensions: =",
        b"Sec-WebSocket-Extensions: ;",
        b"Sec-WebSocket-Extensions: @",
        b"Sec-WebSocket-Extensions: " + b'"' * 8001,
        b"Sec-WebSocket-Protocol: a b",
        b"Sec-WebSocket-Protocol: a, a",
        b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a",
        b"Sec-WebSocket-Protocol: (",
    ],
)
async def test_a_malformed_field_gets_400_and_no_log_line(autojump_clock: MockClock, field: bytes) -> None:
    async with websocket(echo, head=upgrade(more=field + b"\r\n")) as here:
        await here.over.wait()
        assert (await here.client.stream.receive_some()).startswith(b"HTTP/1.1 400 ")
    assert here.records.logged == []
    assert [record.status for record in here.records.requests] == [400]


async def test_subprotocols_and_offers_may_be_split_over_fields(autojump_clock: MockClock) -> None:
    offered: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope["subprotocols"])
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "one"})

    more = (
        b"Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two, three\r\n"
        b"Sec-WebSocket-Extensions: x-a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Connection: keep-alive\r\nUpgrade: x-other\r\n"
    )
    async with websocket(serve, head=upgrade(more=more)) as here:
        answer = await here.client.stream.receive_some()
    assert offered == [["one", "two", "three"]]
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-protocol: one\r\nsec-websocket-extensions: permessage-deflate\r\n" in answer


@given(st.binary(max_size=200))
def test_any_field_value_is_accepted_declined_or_refused(value: bytes) -> None:
    for fields in ({"extensions": value}, {"protocols": value}, {"extensions": b"permessage-deflate;" + value}):
        try:
            opening(**fields)
        except HeadError as error:
            assert error.error_response.status == 400


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"client_no_context_takeover": True, "server_max_window_bits": 10}])
async def test_compressed_messages_are_received_and_sent(autojump_clock: MockClock, options: Any, seed: int) -> None:
    messages = [random.Random(seed).randbytes(size) * 3 for size in (0, 1, 1000, 30_000)]
    async with websocket(echo) as here:
        accepted = await here.client.open(extensions=[PerMessageDeflate(**options)])
        assert isinstance(accepted, AcceptConnection)
        for message in messages * 2:
            await here.client.send(BytesMessage(message))
            assert await here.client.message() == message


def frame(first: int, payload: bytes) -> bytes:
    size = bytes([0x80 + len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + bytes(4) + payload


async def test_bytes_after_the_last_block_of_a_message_close_the_websocket(autojump_clock: MockClock) -> None:
    deflate = zlib.compressobj(wbits=-15)
    last = deflate.compress(b"hello") + deflate.flush()
    async with websocket(echo) as here:
        await here.client.open(extensions=[PerMessageDeflate()])
        # With its padding (RFC 7692 section 7.2.3.4) such a message is valid, and so is the next one.
        for _ in range(2):
            await here.client.stream.send_all(frame(0xC2, last + b"\0"))
            assert await here.client.message() == b"hello"
        await here.client.stream.send_all(frame(0x42, last) + frame(0x00, bytes(1000)))
        assert await here.client.ended() == 1007
    assert here.records.logged == []


async def test_an_extended_connect_that_ends_its_stream_gets_400(autojump_clock: MockClock) -> None:
    async with h2_connected(echo) as here:
        fields = {":method": "CONNECT", ":protocol": "websocket"}
        stream = await here.client.request(headers=[("sec-websocket-version", "13")], end=True, **fields)
        assert (await here.client.answer(stream)).status == 400
    assert [record.status for record in here.records.requests] == [400]
    assert here.records.logged == []
