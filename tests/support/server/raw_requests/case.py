"""A case of the tables of raw requests: the bytes that a client sends, and the statuses of the responses."""

from __future__ import annotations

from typing import NamedTuple

HOST = b"Host: gateway.test"
CLOSE = b"Connection: close"
JSON = b"Content-Type: application/json"
LATER = b"GET /livez HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"
"""A request that is sent directly after each case. After a framing error the server must not answer it."""
MAX_BODY = 100_000
"""The key ``max_body`` of the server, in bytes."""


class Case(NamedTuple):
    """The bytes sent on one connection, and the statuses received before the server closes the connection."""

    sent: bytes
    answers: tuple[int, ...]

    @property
    def refused(self) -> bool:
        return all(status >= 400 for status in self.answers)


Table = dict[str, Case]


def head(*fields: bytes, line: bytes = b"GET /r HTTP/1.1") -> bytes:
    """A request head with exactly these fields."""
    return b"".join(part + b"\r\n" for part in (line, *fields)) + b"\r\n"


def get(*fields: bytes, target: bytes = b"/r") -> bytes:
    return head(HOST, *fields, line=b"GET " + target + b" HTTP/1.1")


def post(*fields: bytes, body: bytes = b"", target: bytes = b"/echo") -> bytes:
    return head(HOST, JSON, *fields, line=b"POST " + target + b" HTTP/1.1") + body


def chunked(framing: bytes, *fields: bytes) -> bytes:
    """A POST with these bytes as its chunked body."""
    return post(b"Transfer-Encoding: chunked", *fields, body=framing)


def refused(status: int, sent: bytes) -> Case:
    """A case in which the server sends one response and closes the connection without parsing ``LATER``."""
    return Case(sent + LATER, (status,))


def served(sent: bytes, *answers: int) -> Case:
    """A case in which the server answers the request (200 by default) and then ``LATER`` (200)."""
    return Case(sent + LATER, (*(answers or (200,)), 200))
