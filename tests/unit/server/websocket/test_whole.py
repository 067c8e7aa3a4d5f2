"""WebSocket messages stay whole: beside other messages, beside pongs, and after a cancelled send."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import wsproto
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.support.server.h2_client import H2Client
from tests.support.server.h2_connections import h2_connected
from tests.unit.server.websocket.test_websocket import echo, websocket

MockClock = trio.testing.MockClock
LARGE = "0123456789abcdef" * 20_000


async def whole(client: Any) -> list[Any]:
    """Receive the parts of the next message."""
    parts: list[Any] = []
    while not parts or not parts[-1].message_finished:
        event = await client.event()
        assert isinstance(event, TextMessage | BytesMessage), event
        parts.append(event)
    return parts


@pytest.mark.parametrize("content", [LARGE, LARGE.encode(), "\U0001f600" * 100_000, "x" * 32_768, ""])
async def test_a_large_compressed_message_is_sent_in_fragments(content: str | bytes, autojump_clock: MockClock) -> None:
    async with websocket(echo) as here:
        await here.client.open(extensions=[PerMessageDeflate()])
        for _ in range(2):
            await here.client.send(TextMessage(content) if isinstance(content, str) else BytesMessage(content))
            parts: list[Any] = await whole(here.client)
            joined = ("" if isinstance(content, str) else b"").join(part.data for part in parts)
            assert joined == content
            assert len(parts) == max(1, -(-len(content) // 32_768))


async def test_messages_of_two_tasks_do_not_mix(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def say(text: str) -> None:
            for _ in range(3):
                await send({"type": "websocket.send", "text": text})

        async with trio.open_nursery() as nursery:
            for text in ("a" * 200_000, "b" * 200_000, "c"):
                nursery.start_soon(say, text)

    async with websocket(serve) as here:
        await here.client.open(extensions=[PerMessageDeflate()])
        told = [await here.client.message() for _ in range(9)]
        assert sorted(told) == sorted(3 * ["a" * 200_000, "b" * 200_000, "c"])


async def test_a_message_whose_sender_is_cancelled_is_sent_whole(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with trio.move_on_after(1):
            await send({"type": "websocket.send", "text": LARGE})
        await send({"type": "websocket.send", "text": "next"})
        await trio.sleep_forever()

    async with websocket(serve) as here:
        await here.client.open(extensions=[PerMessageDeflate()])
        await trio.sleep(2)
        assert await here.client.message() == LARGE
        assert await here.client.message() == "next"


# HTTP/2: a frame may have to wait for the client's window before it is complete.


async def opened_over_h2(client: H2Client) -> int:
    fields = {":method": "CONNECT", ":protocol": "websocket"}
    stream = await client.request(headers=[("sec-websocket-version", "13")], end=False, **fields)
    while not client.answers[stream].status:
        await client.receive()
    return stream


async def heard_over_h2(client: H2Client, stream: int, count: int) -> list[Any]:
    """Receive the first ``count`` messages and pongs, and open the windows by what was read."""
    ws = Connection(ConnectionType.CLIENT)
    heard: list[Any] = []
    text = ""
    while len(heard) < count:
        data, client.answers[stream].body = client.answers[stream].body, b""
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    heard.append(text)
                    text = ""
            else:
                heard.append(event)
        if len(heard) < count:
            assert await client.receive()
            await client.flush()
    return heard


async def test_a_pong_does_not_split_a_frame_over_http_2(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": LARGE})
        await receive()

    async with h2_connected(serve) as here:
        stream = await opened_over_h2(here.client)
        await trio.testing.wait_all_tasks_blocked()
        ws = wsproto.connection.Connection(ConnectionType.CLIENT)
        await here.client.data(stream, ws.send(Ping(b"now")))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await heard_over_h2(here.client, stream, 2) == [LARGE, Pong(b"now")]


async def test_a_message_over_http_2_whose_sender_is_cancelled_is_sent_whole(autojump_clock: MockClock) -> None:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with trio.move_on_after(1):
            await send({"type": "websocket.send", "text": LARGE})
        await send({"type": "websocket.send", "text": "next"})
        await receive()

    async with h2_connected(serve) as here:
        stream = await opened_over_h2(here.client)
        await trio.sleep(2)
        with trio.fail_after(5):
            assert await heard_over_h2(here.client, stream, 2) == [LARGE, "next"]


@pytest.mark.parametrize("together", [True, False])
async def test_the_end_of_the_stream_within_a_frame_counts_as_leaving(
    together: bool, autojump_clock: MockClock
) -> None:
    heard: list[Any] = []

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not heard or heard[-1]["type"] == "websocket.receive":
            heard.append(await receive())

    async with h2_connected(serve) as here:
        stream = await opened_over_h2(here.client)
        message = Connection(ConnectionType.CLIENT).send(TextMessage("last"))
        await here.client.data(stream, message, end=together)
        if not together:
            await here.client.data(stream, b"", end=True)
        with trio.fail_after(5):
            await here.client.answer(stream)
        assert [(each["type"], each.get("text", each.get("code"))) for each in heard] == [
            ("websocket.receive", "last"),
            ("websocket.disconnect", 1006),
        ]
