"""What ``make bench-proxy`` sends through each proxy before it measures: what comes out must be what went in."""

from __future__ import annotations

import http.client
import json
import socket

from .origin import FIRST, LAST
from .streams import ECHO, FRAME, KEY

LARGE = 10_000_000
POST = 1000
BODY = json.dumps(
    {
        "id": 42,
        "name": "Ada Lovelace",
        "email": "ada@example.org",
        "orders": [
            {"id": number, "sku": f"A-{number:04}", "count": number % 7, "price": "19.90", "open": number % 2 == 0}
            for number in range(25)
        ],
        "total": "1012.50",
        "currency": "EUR",
    },
    separators=(",", ":"),
).encode()
"""The small response, 1.7 kB."""
ITEM, FILE, UPLOAD, SLOW = "/files/item", "/files/large", "/streams/upload", "/streams/slow"
SPREAD, TOGETHER, IDLE, SOCKET = "/streams/spread", "/streams/together", "/streams/idle", "/sockets/socket"


def large() -> bytes:
    """Return the large body, each of its blocks another."""
    return b"".join(b"%015d\n" % number for number in range(LARGE // 16))


def get(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request; return status and body, or 0 and the reason if there was no response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def failure(port: int) -> str | None:
    """Return the first difference that the proxy on this port makes; None if there is none."""
    whole = large()
    cases = (
        (ITEM, None, BODY),
        (ITEM, b"x" * POST, BODY),
        (FILE, None, whole),
        (UPLOAD, whole, b"%d" % LARGE),
        (SLOW, None, FIRST + LAST),
    )
    for path, sent, expected in cases:
        status, body = get(port, path, sent)
        if (status, body) != (200, expected):
            return f"its response to {path} is wrong: {status} {body[:200]!r}"
    if not _first_event(port):
        return f"it passes on no event of {IDLE}"
    return None if echoed(port) else f"it passes on no frame of {SOCKET}"


def _first_event(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", IDLE)
        return connection.getresponse().read1().startswith(b"data: ")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def echoed(port: int) -> bool:
    """Whether a frame comes back through a WebSocket."""
    fields = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(f"GET {SOCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode() + fields)
            if not _read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101"):
                return False
            sock.sendall(FRAME)
            return _read_until(sock, ECHO).endswith(ECHO)
    except OSError:
        return False


def _read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end) and (piece := sock.recv(1 if end[:1] == b"\r" else 4096)):
        data += piece
    return data
