"""A client of an admin side, over its Unix socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

TEST_TIMEOUT_S = 50.0


async def ask_admin(path: Path, method: str, target: str, arguments: Any = None) -> tuple[int, dict[str, Any]]:
    """Send one request, and return the status and the JSON object of the response."""
    status, body = await ask_admin_bytes(
        path, method, target, b"" if arguments is None else json.dumps(arguments).encode()
    )
    answer: dict[str, Any] = json.loads(body)
    return status, answer


async def ask_admin_bytes(path: Path, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request, and return the status and the content of the response."""
    head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    with trio.fail_after(TEST_TIMEOUT_S):
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(head.encode() + body)
            received = b"".join([piece async for piece in stream])
    response_head, _, content = received.partition(b"\r\n\r\n")
    return int(response_head.split()[1]), content
