"""The ways to send a request to an application, each on the virtual clock and with fixed ids.

A way is a function of an application that has not started yet, and of a case. It returns the response and the records.
``WAYS`` lists all ways. Without a server the application runs in a task with the name ``request``; in a record's task
path everything before this name belongs to the test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import h11
import httpx
import trio
import trio.testing

from tests.support.server import asgi
from tests.support.server.asgi import Answer, Conversation, http_scope, living
from tests.support.server.http1 import served
from umbel.config.schema.sections import Config
from umbel.core.events import Event, LogMessage
from umbel.core.product import PRODUCT
from umbel.gateway.app import Umbel
from umbel.gateway.request import trace_ids as ids
from umbel.logs import context
from umbel.server.response import error_response

from .cases import ROUTES, Case

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DRAWN = "5" * 32
"""The value of each id that is random otherwise."""
SERVED_S = 60.0
"""The seconds that a connection may take, in virtual time."""


class Recorded(NamedTuple):
    """An event that was recorded, with the path of the recording task and the fields that were bound."""

    event: Event
    task: str
    bound: dict[str, object]


class Recorder:
    """A recorder that keeps the events of requests."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []

    def record(self, event: Event) -> None:
        if isinstance(event, LogMessage) and event.event == "hooks.found":
            return  # Recorded at startup; it belongs to no request.
        self.recorded.append(Recorded(event, context.task_path(), dict(context.current().fields)))


class Upstream(httpx.AsyncBaseTransport):
    """An upstream that answers with the request it received and the fields that were bound."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.extensions["target"].decode()
        if path == "/slow":
            await trio.sleep(3)
        if path == "/crash":
            raise LookupError("a crash of a layer")
        headers = [
            ("content-type", "application/json"),
            ("x-part", "1"),
            ("x-part", "2"),
            ("etag", '"part"'),
            ("vary", "x"),
        ]
        headers += [("set-cookie", "c=1"), ("set-cookie", "d=2")]
        if path == "/cached":
            headers.append(("cache-control", "max-age=60"))
        if path == "/busy":
            return httpx.Response(429, content=b"busy", headers=[("content-type", "text/x"), ("retry-after", "7")])
        # The recorded answers must not depend on the version of Umbel.
        fields = [(name, "umbel" if value == PRODUCT else value) for name, value in request.headers.items()]
        sent: dict[str, Any] = {"fields": sorted(f for f in fields if f[0] not in ("traceparent", "host"))}
        sent["body"] = request.content.decode("latin-1")
        sent["bound"] = dict(context.current().fields)
        return httpx.Response(500 if path == "/wrong" else 200, json=sent, headers=headers)


Asked = tuple[Answer, list[Recorded]]
Ask = Callable[[Umbel, Case], Awaitable[Asked]]


class Way(NamedTuple):
    """One way to send a request."""

    name: str
    ask: Ask
    takes: Callable[[Case], bool] = lambda case: True
    """Whether a case can be sent in this way."""
    over_server: bool = False
    """Whether the request goes over Umbel's own server; see ``recorded.expected``."""


def outcome(way: Way, case: Case) -> Asked:
    """Return the response and the records, with the same times and ids in each run."""
    with patch.object(ids, "_drawn", lambda: 2 * DRAWN), patch.object(error_response, "token_hex", lambda _: DRAWN):
        return trio.run(_outcome, way, case, clock=trio.testing.MockClock(autojump_threshold=0))


async def _outcome(way: Way, case: Case) -> Asked:
    app = Umbel(__name__, _config(case), transports={"up": Upstream()}, recorder=Recorder())
    return await way.ask(app, case)


def _config(case: Case) -> Config:
    # Only the routes of the first path segment: the plans of all routes would take long to compile.
    return _config_of(http_scope(target=case.target)["path"].strip("/").partition("/")[0])


@cache
def _config_of(segment: str) -> Config:
    routes = [route for route in ROUTES if route["path"].split("/")[1] == segment] or ROUTES[:3]
    return Config.model_validate(
        {
            "upstreams": {"up": {"urls": ["http://127.0.0.1:1"]}},
            "routes": routes,
            "server": {"trusted_proxies": ["127.0.0.1"], "max_body": "1MB"},
        }
    )


def recorded_by(app: Umbel) -> list[Recorded]:
    """Return the records of an application."""
    recorder = app.given_recorder
    assert isinstance(recorder, Recorder)
    return recorder.recorded


def _scope(case: Case) -> dict[str, Any]:
    headers = [*case.headers, ("x-request-id", "the-request"), ("traceparent", TRACE)]
    return http_scope(case.method, case.target, headers=headers, client=case.client)


async def in_memory(app: Umbel, case: Case) -> Asked:
    """Call the application over ASGI; the route is answered before Quart."""
    return await _in_memory(app, case, direct=True)


async def through_quart(app: Umbel, case: Case) -> Asked:
    """Call the application over ASGI; a hook makes each request go through Quart."""

    async def nothing() -> None:
        """A hook that changes nothing."""

    app.before_request(nothing)
    return await _in_memory(app, case, direct=False)


async def cancelled_by_the_server(app: Umbel, case: Case) -> Asked:
    """Call the application over ASGI; if the client leaves, the server cancels an application that does not receive."""
    with patch.object(asgi, "cancelling", True):
        return await _in_memory(app, case, direct=True)


async def _in_memory(app: Umbel, case: Case, *, direct: bool) -> Asked:
    talk = Conversation(app, _scope(case))
    async with AsyncExitStack() as stack:
        if not case.outside:
            await stack.enter_async_context(living(app))
            assert app.statistics().routes_before_quart is direct
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run, name="request")
            for number, part in enumerate(case.parts):
                await talk.body(part, more=not case.ends or number + 1 < len(case.parts))
            if case.leaves_after is not None:
                await trio.sleep(case.leaves_after)
                await talk.disconnect()
        if not case.outside:
            assert app.statistics().requests_in_flight == 0
    return talk.answer, recorded_by(app)


async def over_http1(app: Umbel, case: Case) -> Asked:
    """Send the request to Umbel's own server, as HTTP/1.1 over a pair of sockets."""
    async with AsyncExitStack() as stack:
        if not case.outside:
            await stack.enter_async_context(living(app))
            assert app.statistics().routes_before_quart
        with trio.fail_after(SERVED_S):
            async with served(app) as server, server.connected(case.client) as client:
                answer = await _converse(client.stream, case)
        assert app.statistics().requests_in_flight == 0
    return answer, recorded_by(app)


async def _converse(stream: trio.SocketStream, case: Case) -> Answer:
    """Send the request; return the response as received until its end, the connection's end or the client's leaving."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=case.method, target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    answer = Answer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, case)
        if case.leaves_after is None:
            await _read(stream, reader, answer)
        else:
            nursery.start_soon(_read, stream, reader, answer)
            # The client must not leave before the application waits: the server would take that for a half-close.
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(case.leaves_after)
        nursery.cancel_scope.cancel(reason="the client has its response, or leaves")
    return answer


async def _send(stream: trio.SocketStream, case: Case) -> None:
    scope = _scope(case)
    fields = scope["headers"]
    sized = any(name == b"content-length" for name, _ in fields)
    chunked = not sized and case.method == "POST"
    if chunked:
        fields = [*fields, (b"transfer-encoding", b"chunked")]
    target = case.target if isinstance(case.target, bytes) else case.target.encode("latin-1")
    head = b"%b %b HTTP/1.1\r\n" % (case.method.encode(), target)
    head += b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"
    parts = [b"%x\r\n%b\r\n" % (len(part), part) if chunked else part for part in case.parts if part]
    if chunked and case.ends:
        parts.append(b"0\r\n\r\n")
    try:
        for part in (head, *parts):
            await stream.send_all(part)
    except trio.BrokenResourceError:
        pass  # The server has answered and closed the connection before the end of the body.


async def _read(stream: trio.SocketStream, reader: h11.Connection, answer: Answer) -> None:
    ended = False
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError:
            if not ended:
                raise
            return  # The connection ended within the response.
        if event is h11.NEED_DATA:
            try:
                data = await stream.receive_some()
            except trio.BrokenResourceError:
                return
            ended = not data
            reader.receive_data(data)
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            answer.parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            answer.complete = True
            return
        elif isinstance(event, h11.ConnectionClosed):
            return


def _is_over(case: Case) -> bool:
    """Whether the client ends its body or leaves. Otherwise only Umbel's own server ends the wait for the body."""
    return case.ends or case.leaves_after is not None


WAYS = (
    Way("through Quart", through_quart),
    Way("before Quart", in_memory),
    Way("before Quart, cancelled by the server", cancelled_by_the_server, _is_over),
    Way("over HTTP/1.1", over_http1, over_server=True),
)
