"""One WebSocket in memory, as an ASGI server gives it to an application."""

from __future__ import annotations

from typing import Any

import trio

from umbel.core.inbound import ClientGoneError

Message = dict[str, Any]


async def converse(
    app: Any, *came: Message, path: str = "/ws", raw: bytes | None = None, leaves: bool = False, **scope: Any
) -> list[Message]:
    """Give messages to the application as a server does, and return the messages that it sends."""
    sent: list[Message] = []
    waiting = [{"type": "websocket.connect"}, *came]

    closed = trio.Event()

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await closed.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        if leaves:
            raise ClientGoneError("the client has gone")
        sent.append(message)
        if message["type"] == "websocket.close":
            closed.set()

    await app(
        {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": raw if raw is not None else path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"gateway.test"), (b"x-forwarded-for", b"203.0.113.9")],
            "client": ("192.0.2.1", 1),
            "server": ("192.0.2.2", 80),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            **scope,
        },
        receive,
        send,
    )
    return sent
