"""Native applications of the server (``InboundApplication``) made of one function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.logs.records import Records
from tests.support.server.http1 import Server, served
from umbel.core.inbound import InboundApplication, InboundRequest
from umbel.server.limits.server_limits import Limits


class Native(InboundApplication):
    """An ``InboundApplication`` made of one function. With ``any_size`` it takes bodies of any size."""

    def __init__(self, handle: Callable[[InboundRequest], Awaitable[object]], *, any_size: bool = False) -> None:
        self.recorder = Records()
        self.asked = 0
        """How often ``takes_any_size`` was called."""
        self._handle = handle
        self._any_size = any_size

    async def handle(self, request: Any) -> None:
        await self._handle(request)

    def error_response_fields(self, head: Any, fields: Any) -> Any:
        return fields

    def takes_any_size(self, head: Any) -> bool:
        self.asked += 1
        return self._any_size


@asynccontextmanager
async def native(
    handle: Callable[[InboundRequest], Awaitable[object]], limits: Limits | None = None, *, any_size: bool = False
) -> AsyncIterator[Server]:
    async with served(Native(handle, any_size=any_size), limits=limits) as server:
        yield server


async def respond(request: InboundRequest, body: bytes = b"hello") -> None:
    if not request.respond(200, [], body):
        await request.drained()


async def inform_and_respond(expected: list[bool], request: InboundRequest) -> None:
    """Send a 103, two 100s and, after the response, a 102; note ``expects_continue`` before and after the first 100."""
    request.inform_soon(103, [(b"link", b"</a>")])
    expected.append(request.expects_continue)
    request.inform_soon(100, [])
    expected.append(request.expects_continue)
    await request.inform(100, [])
    assert await request.receive() == b"body"
    await respond(request)
    request.inform_soon(102, [])
