"""Applications that repeat one call of ``receive`` or ``send`` in a loop, for each state of a request.

A case names the state, says how the request gets there, and which call is repeated. ``Spinner`` is the application of
one case. It answers each path except ``/spin`` at once, so that a second client sees whether the worker is blocked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from tests.support.server.h2_client import H2Client, h2_client
from tests.support.server.ws_client import upgrade

CALLS = 100_000
CLOSE_FRAME = b"\x88\x82\x00\x00\x00\x00\x03\xe8"

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"x", "more_body": True}
EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": True}
END: Message = {"type": "http.response.body", "body": b""}
ACCEPT: Message = {"type": "websocket.accept"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
CLOSE: Message = {"type": "websocket.close"}
DENIAL: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}
DENIED: Message = {"type": "websocket.http.response.body", "body": b"", "more_body": True}
NOTHING: Message = {"type": "no.such.message"}


@dataclass(frozen=True)
class Case:
    """A state, the calls that lead there, and the call that is repeated.

    A message stands for a ``send`` of it, and None for a ``receive``.
    """

    state: str
    repeated: Message | None
    before: tuple[Message | None, ...] = ()
    """The calls that lead to the state."""
    method: str = "GET"
    body: bool = False
    """Whether the client has announced a body that it does not send."""
    until: str = ""
    """The type of message for which the application waits after ``before``: a disconnect."""
    client: str = "stays"
    """What follows the request: the client "stays", "leaves" or "closes" its WebSocket, or the server "drains"."""

    def __str__(self) -> str:
        return f"{self.state}: {'receive' if self.repeated is None else self.repeated['type']}"


def _late(state: str, **keys: Any) -> list[Case]:
    """Every call in a state after the end of the response."""
    return [Case(state, repeated, **keys) for repeated in (None, START, PART, END, NOTHING)]


def _late_websocket(state: str, **keys: Any) -> list[Case]:
    return [Case(state, repeated, **keys) for repeated in (None, ACCEPT, TEXT, CLOSE, DENIAL, DENIED, NOTHING)]


HTTP = [
    Case("before the start", None),
    Case("before the start", NOTHING),
    Case("before the start", PART),
    Case("before the start", {"type": "http.response.push", "path": "/x", "headers": []}),
    Case("a status that is none", {**START, "status": 99}),
    Case("a body that does not come", NOTHING, method="POST", body=True),
    Case("started", START, before=(START,)),
    Case("in the body", PART, before=(START,)),
    Case("in the body, empty parts", EMPTY, before=(START,)),
    Case("in the body, nothing read", {**START, "headers": 1}, before=(START, PART)),
    Case("HEAD", PART, before=(START,), method="HEAD"),
    Case("HEAD, empty parts", EMPTY, before=(START,), method="HEAD"),
    Case("204", PART, before=({**START, "status": 204},)),
    Case("304", EMPTY, before=({**START, "status": 304},)),
    Case(
        "trailers without end",
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        before=({**START, "trailers": True}, END),
    ),
    *_late("answered", before=(START, END)),
    *_late("answered, the request not read", before=(START, END), method="POST", body=True),
    *_late("the client has gone", until="http.disconnect", client="leaves"),
    *_late("the client has gone in the body", before=(START, PART), until="http.disconnect", client="leaves"),
]
WEBSOCKET = [
    Case("before the accept", None),
    Case("before the accept", TEXT),
    Case("before the accept", DENIAL),
    Case("before the accept", NOTHING),
    Case("being refused", DENIED, before=(DENIAL,)),
    Case("being refused without content", DENIED, before=({**DENIAL, "status": 304},)),
    Case("open", None, before=(None, ACCEPT)),
    Case("open", TEXT, before=(None, ACCEPT)),
    Case("open", ACCEPT, before=(None, ACCEPT)),
    Case("open while the client closes", TEXT, before=(None, ACCEPT), client="closes"),
    Case("open while the client leaves", TEXT, before=(None, ACCEPT), client="leaves"),
    Case("open while the server drains", TEXT, before=(None, ACCEPT), client="drains"),
    *_late_websocket("the client has closed", before=(None, ACCEPT), until="websocket.disconnect", client="closes"),
    *_late_websocket("the client has gone", before=(None, ACCEPT), until="websocket.disconnect", client="leaves"),
    *_late_websocket("the server drains", before=(None, ACCEPT), until="websocket.disconnect", client="drains"),
    *_late_websocket("closed by the application", before=(None, ACCEPT, CLOSE)),
    *_late_websocket("refused by a close", before=(None, CLOSE)),
    *_late_websocket("refused by an answer", before=(None, DENIAL, {**DENIED, "more_body": False})),
]
LIFESPAN = [
    Case("starting", {"type": "lifespan.startup.complete"}, before=(None,)),
    Case("starting", NOTHING, before=(None, {"type": "lifespan.startup.complete"})),
    Case("started", None, before=(None, {"type": "lifespan.startup.complete"})),
    Case("started", {"type": "lifespan.shutdown.complete"}, before=(None, {"type": "lifespan.startup.complete"})),
]


class Spinner:
    """The application of one case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.spins = trio.Event()
        """Set when the application has reached its state; it repeats its call from then on."""
        self.over = trio.Event()
        """Set when the application has returned."""
        self.was_served = False
        """Set by the test when the second client has its responses."""
        self.held_the_worker = False
        """Whether all CALLS repetitions were over before the second client had its responses."""
        self.calls = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        kind = "lifespan" if self._case in LIFESPAN else "request"
        if scope["type"] == "lifespan":
            if kind == "lifespan":
                await self._run(receive, send)
            else:
                raise NotImplementedError("this application has no lifespan")
        elif scope["path"] == "/spin":
            await self._run(receive, send)
        else:
            await send({**START, "headers": [(b"content-length", b"5")]})
            await send({**END, "body": b"hello"})

    async def _run(self, receive: Receive, send: Send) -> None:
        try:
            for message in self._case.before:
                await (receive() if message is None else send(message))
            if self._case.client in ("closes", "leaves", "drains") and not self._case.until:
                self.spins.set()
            if self._case.until:
                self.spins.set()  # So that the test makes the client leave or close, or the server drain.
                while (await receive())["type"] != self._case.until:
                    pass
            self.spins.set()
            await self._repeat(receive, send)
        finally:
            self.spins.set()
            self.over.set()

    async def _repeat(self, receive: Receive, send: Send) -> None:
        repeated = self._case.repeated
        for _ in range(CALLS):
            if self.was_served:
                return
            self.calls += 1
            with suppress(Exception):  # The application under test ignores errors.
                await (receive() if repeated is None else send(repeated))
        self.held_the_worker = not self.was_served


@asynccontextmanager
async def asking(
    protocol: str, port: int, case: Case, *, websocket: bool
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A client that has requested ``/spin`` and reads everything; the yielded function acts as ``case.client`` says."""
    async with trio.open_nursery() as nursery:
        if protocol == "HTTP/2":
            async with h2_client(port) as client:
                act = await _ask_http2(client, case, websocket, nursery)
                yield act
                nursery.cancel_scope.cancel()
        else:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(_http1_request(case, websocket))
                nursery.start_soon(_read_http1, stream)

                async def act_http1() -> None:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        if case.client == "closes":
                            await stream.send_all(CLOSE_FRAME)
                        elif case.client == "leaves":
                            await stream.aclose()

                yield act_http1
                nursery.cancel_scope.cancel()


def _http1_request(case: Case, websocket: bool) -> bytes:
    if websocket:
        return upgrade(b"/spin")
    length = b"Content-Length: 100\r\n" if case.body else b""
    return b"%b /spin HTTP/1.1\r\nHost: gateway.test\r\nTE: trailers\r\n%b\r\n" % (case.method.encode(), length)


async def _read_http1(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some(65536):
            pass


async def _ask_http2(
    client: H2Client, case: Case, websocket: bool, nursery: trio.Nursery
) -> Callable[[], Awaitable[None]]:
    if websocket:
        fields = {":method": "CONNECT", ":protocol": "websocket"}
        while not client.settled:
            await client.receive()
        stream_id = await client.request(path="/spin", headers=[("sec-websocket-version", "13")], end=False, **fields)
    else:
        stream_id = await client.request(case.method, "/spin", [("te", "trailers")], end=not case.body)

    async def read() -> None:
        with suppress(Exception):  # h2 raises for frames that arrive after it has reset the stream
            while await client.receive():
                pass

    async def act() -> None:
        if case.client == "closes":
            client.h2.send_data(stream_id, CLOSE_FRAME)
        elif case.client == "leaves":
            client.h2.reset_stream(stream_id)
        while True:
            with suppress(trio.BusyResourceError):  # The reading task may be sending at this moment.
                await client.flush()
                return
            await trio.lowlevel.checkpoint()

    nursery.start_soon(read)
    return act
