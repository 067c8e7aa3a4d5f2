"""A case of the raw tables: the bytes a client sends, and the answers that it is owed."""

from __future__ import annotations

from typing import NamedTuple

HOST = b"Host: gateway.test"
CLOSE = b"Connection: close"
JSON = b"Content-Type: application/json"
LATER = b"GET /livez HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"
"""Follows what is refused in the same packet. After a framing error it must never be answered."""
MAX_BODY = 100_000
"""Bytes, of the server that the cases are sent to."""


class Case(NamedTuple):
    """What is sent on one connection, and the statuses that come back before the server closes it."""

    sent: bytes
    answers: tuple[int, ...]

    @property
    def refused(self) -> bool:
        return all(status >= 400 for status in self.answers)


Table = dict[str, Case]


def head(*fields: bytes, line: bytes = b"GET /r HTTP/1.1") -> bytes:
    """A head with exactly these fields."""
    return b"".join(part + b"\r\n" for part in (line, *fields)) + b"\r\n"


def get(*fields: bytes, target: bytes = b"/r") -> bytes:
    return head(HOST, *fields, line=b"GET " + target + b" HTTP/1.1")


def post(*fields: bytes, body: bytes = b"", target: bytes = b"/echo") -> bytes:
    return head(HOST, JSON, *fields, line=b"POST " + target + b" HTTP/1.1") + body


def chunked(framing: bytes, *fields: bytes) -> bytes:
    """A POST whose chunked body is spelled out."""
    return post(b"Transfer-Encoding: chunked", *fields, body=framing)


def refused(status: int, sent: bytes) -> Case:
    """One answer, then the end: the request that follows is never parsed."""
    return Case(sent + LATER, (status,))


def served(sent: bytes, *answers: int) -> Case:
    """Answered, and so is the request after it."""
    return Case(sent + LATER, (*(answers or (200,)), 200))
