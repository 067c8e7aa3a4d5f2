"""A response on its way out: ASGI's send, and the count of what went through it.

One per request. It knows when the last part is being sent, which is all that tells a client that left from a server
that has finished. It decides no status and holds no scope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from quart.wrappers.response import DataBody, Response, ResponseBody
from werkzeug.wrappers import Response as WerkzeugResponse

from .fields import Field
from .reply import BODILESS, REQUEST_ID, Reply, encoded

REQUEST_ID_HEADER = REQUEST_ID.decode()

_ONE_SEND_MAX = 64 * 1024
"""A body up to this goes out in one send with the end of the message. A larger one can wait for the client, and a
disconnect in the meantime must not look like the server's own (``finishing``)."""

AnyResponse = Response | WerkzeugResponse


class Sender:
    """Sends one response. ``status`` is None until its head is handed to the server.

    The head goes with the first part of the body (as servers send it, too), so what fails before that part can still be
    answered in another way.
    """

    def __init__(self, send: Callable[[Any], Awaitable[None]], *, head_only: bool, request_id: str) -> None:
        self._send = send
        self._head_only = head_only
        self._request_id = request_id
        self._waiting_head: dict[str, Any] | None = None
        """The head that goes with the first part."""
        self.status: int | None = None
        self.bytes_sent = 0
        self.finishing = False
        """The last part is with the server, so a disconnect says nothing about the client any more."""
        self.finished = False

    async def reply(self, reply: Reply) -> None:
        """Send the whole answer. Cancelled midway, it leaves the message unfinished, so the server closes."""
        fields = reply.fields
        if not reply.named or all(name != REQUEST_ID for name, _ in fields):
            fields.append((REQUEST_ID, self._request_id.encode()))
        bodiless = self._head_only or reply.status in BODILESS
        if isinstance(reply.body, bytes):
            await self._start(reply.status, fields)
            await self._last(b"" if bodiless else reply.body)
        else:
            await self._stream(reply.body, bodiless, lambda: self._start(reply.status, fields))

    async def respond(self, response: AnyResponse) -> None:
        """Send the whole response. Cancelled midway, it leaves the message unfinished, so the server closes."""
        bodiless = self._head_only or response.status_code in BODILESS
        if isinstance(response, WerkzeugResponse):
            await self._head(response)
            await self._sync_body(response, bodiless)
        elif isinstance(response.response, DataBody):
            # Range requests move these two.
            data = response.response.data[response.response.begin : response.response.end]
            await self._head(response)
            await self._last(b"" if bodiless else data)
        else:
            await self._stream(response.response, bodiless, lambda: self._head(response))

    async def _stream(self, body: ResponseBody, bodiless: bool, head: Callable[[], Awaitable[None]]) -> None:
        async with body as parts:
            await head()
            if not bodiless:
                async for part in parts:
                    await self._part(part)
        await self._last(b"")

    async def _head(self, response: AnyResponse) -> None:
        if response.status_code in BODILESS:
            del response.headers["content-length"], response.headers["content-type"]
        response.headers.setdefault(REQUEST_ID_HEADER, self._request_id)
        await self._start(response.status_code, encoded(response.headers))

    async def _start(self, status: int, fields: list[Field]) -> None:
        self._waiting_head = {"type": "http.response.start", "status": status, "headers": fields}

    async def _send_head(self) -> None:
        head, self._waiting_head = self._waiting_head, None
        if head is not None:
            await self._send(head)
            self.status = head["status"]

    async def _sync_body(self, response: WerkzeugResponse, bodiless: bool) -> None:
        try:
            if bodiless:
                await self._last(b"")
            elif response.is_sequence:
                await self._last(b"".join(response.iter_encoded()))
            else:
                for part in response.iter_encoded():
                    await self._part(part)
                await self._last(b"")
        finally:
            response.close()

    async def _part(self, part: bytes | str) -> None:
        data = part.encode() if isinstance(part, str) else part
        if self._waiting_head is not None:
            await self._send_head()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.bytes_sent += len(data)

    async def _last(self, data: bytes) -> None:
        if len(data) > _ONE_SEND_MAX:
            await self._part(data)
            data = b""
        if self.bytes_sent:
            # A send to a client that has gone raises nothing: the server posts its disconnect and returns. Whoever
            # watches for it gets a turn now, while it still means the client.
            await trio.lowlevel.checkpoint()
        if self._waiting_head is not None:
            await self._send_head()
        self.finishing = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        self.bytes_sent += len(data)
        self.finished = True
