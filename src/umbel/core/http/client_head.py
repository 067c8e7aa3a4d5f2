"""The parts of a request's head that only some recorders need: version, Referer and User-Agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ClientHead(NamedTuple):
    """The HTTP version, the Referer and the User-Agent of a request, as the client sent them.

    Bytes that are not UTF-8 are surrogate escapes.
    """

    version: str
    """``1.0``, ``1.1`` or ``2``; empty if unknown."""
    referer: str = ""
    user_agent: str = ""


def client_head(version: str, fields: Iterable[tuple[bytes, bytes]]) -> ClientHead:
    """Find the first Referer and User-Agent in ``fields``, whose names are in lower case."""
    referer = user_agent = b""
    for name, value in fields:
        if name == b"referer":
            referer = referer or value
        elif name == b"user-agent":
            user_agent = user_agent or value
    return ClientHead(
        version, referer.decode("utf-8", "surrogateescape"), user_agent.decode("utf-8", "surrogateescape")
    )
