"""An ASGI server in memory: it sends requests to an application without sockets, threads or Quart's test client.

It behaves like Hypercorn in two respects: the queue of messages to the application is bounded, and ``http.disconnect``
is put into the queue while the application sends the last part of the response. With ``cancelling`` it behaves like
Umbel's server: if the client disconnects while the application does not wait in ``receive``, the application is
cancelled.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import trio

from umbel.core.inbound import ClientGoneError
from umbel.server.asgi import CANCELS
from umbel.server.lifespan import OWN_SERVER

App = Callable[[Any, Any, Any], Awaitable[None]]

cancelling = False
"""Whether a disconnect cancels an application that does not wait in ``receive``. A fixture sets it."""


@dataclass
class Answer:
    """The response that an application sent."""

    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    complete: bool = False
    sends: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __getitem__(self, name: str) -> str:
        """The value of a header field that must be there exactly once."""
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    def all(self, name: str) -> list[str]:
        """The values of all header fields of this name."""
        return [value for key, value in self.headers if key == name.lower()]


class Conversation:
    """One request to an application. The test sends body parts or a disconnect; ``answer`` is the response so far."""

    def __init__(self, app: App, scope: dict[str, Any], *, queue: int = 10) -> None:
        self._app = app
        self._scope = scope
        self._to_app, self._from_server = trio.open_memory_channel[dict[str, Any]](queue)
        self.answer = Answer()
        self.head = trio.Event()
        self.part = trio.Event()
        self.reading = trio.Event()
        """Replaced by an unset event in ``stop_reading``; sends wait for it, as for a client whose window is full."""
        self.reading.set()
        self._closed = False
        self._cancels = cancelling
        self._listeners = 0
        self.expects_continue = False
        self._cancel_scope = trio.CancelScope()
        self.gone = False
        if self._cancels:
            scope["extensions"][CANCELS] = self

    async def run(self) -> None:
        with self._cancel_scope:
            await self._app(self._scope, self.receive, self._send)

    async def receive(self) -> dict[str, Any]:
        self._listeners += 1
        try:
            return await self._from_server.receive()
        finally:
            self._listeners -= 1

    def take_at_most(self, size: int) -> None:
        pass

    def take_any_size(self) -> None:
        pass

    def became_stream(self) -> bool:
        return True

    async def body(self, data: bytes, *, more: bool = False) -> None:
        await self._to_app.send({"type": "http.request", "body": data, "more_body": more})

    async def disconnect(self) -> None:
        self._closed = True
        if self._cancels and not self.answer.complete:
            self.gone = True
            if not self._listeners:
                self._cancel_scope.cancel(reason="client-gone")
                return
        await self._to_app.send({"type": "http.disconnect"})

    def stop_reading(self) -> None:
        self.reading = trio.Event()

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise ClientGoneError("the client has left")
        answer = self.answer
        answer.sends += 1
        if message["type"] == "http.response.start":
            assert answer.status is None, "the application sent a second response head"
            answer.status = message["status"]
            answer.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            assert all(name == name.lower() for name, _ in answer.headers)
            self.head.set()
            return
        assert answer.status is not None, "the application sent a body before the response head"
        assert not answer.complete, "the application sent a body after the end of the response"
        await self.reading.wait()
        if data := message.get("body", b""):
            answer.parts.append(data)
        self.part.set()
        self.part = trio.Event()
        if not message.get("more_body", False):
            answer.complete = True
            if not self._closed:
                # As in Hypercorn: the disconnect is queued within the application's last send. The checkpoint lets an
                # application that waits for the disconnect react before this send returns.
                await self._to_app.send({"type": "http.disconnect"})
                await trio.lowlevel.checkpoint()


def http_scope(
    method: str = "GET",
    target: str | bytes = "/",
    *,
    headers: Iterable[tuple[str, str]] = (),
    client: tuple[str, int] | None = ("127.0.0.1", 40000),
    http_version: str = "1.1",
) -> dict[str, Any]:
    raw = target.encode("latin-1") if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if not any(name == b"host" for name, _ in fields):
        fields.append((b"host", b"gateway.test"))
    return {
        "type": "http",
        "http_version": http_version,
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": fields,
        "client": client,
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }


async def ask(app: App, method: str = "GET", target: str | bytes = "/", *, body: bytes = b"", **options: Any) -> Answer:
    """Send one complete request and return the complete response."""
    conversation = Conversation(app, http_scope(method, target, **options))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conversation.run)
        await conversation.body(body)
    return conversation.answer


@asynccontextmanager
async def conversation(
    app: App, method: str = "GET", target: str | bytes = "/", *, queue: int = 10, **options: Any
) -> AsyncIterator[Conversation]:
    """A request in flight. The block's end waits until the application has returned."""
    talk = Conversation(app, http_scope(method, target, **options), queue=queue)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run)
        yield talk


class LifespanFailedError(Exception):
    """The application's lifespan failed to start or to stop."""


@asynccontextmanager
async def living(app: App, *, own_server: bool = True) -> AsyncIterator[None]:
    """Run the application's lifespan, as Umbel's own server or as another: startup before the block, shutdown after it.

    Raises:
        LifespanFailedError: the application reported that startup or shutdown failed.
    """
    to_app, from_server = trio.open_memory_channel[dict[str, str]](2)
    started, stopped = trio.Event(), trio.Event()

    async def send(message: dict[str, str]) -> None:
        kind = message["type"]
        if kind.endswith(".failed"):
            raise LifespanFailedError(message["message"])
        (started if kind == "lifespan.startup.complete" else stopped).set()

    async with trio.open_nursery() as nursery:
        extensions: dict[str, object] = {OWN_SERVER: {}} if own_server else {}
        scope = {"type": "lifespan", "asgi": {}, "state": {}, "extensions": extensions}
        nursery.start_soon(app, scope, from_server.receive, send)
        await to_app.send({"type": "lifespan.startup"})
        await started.wait()
        yield
        await to_app.send({"type": "lifespan.shutdown"})
        await stopped.wait()
