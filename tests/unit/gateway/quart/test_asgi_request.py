"""Requests through ASGI as ``InboundRequest``: head, body, clients that leave, response, and the way to Quart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from tests.support.logs.event_factories import request_ended
from tests.support.logs.records import Records
from tests.support.server.asgi import ask, http_scope, living
from tests.support.server.inbound import MemoryRequest
from tests.unit.gateway.gateways import gateway, route, says
from umbel.core.failure_kinds import Kind
from umbel.core.inbound import AnsweredByServerError, ClientGoneError, InboundApplication, InboundRequest
from umbel.gateway.app import Umbel
from umbel.gateway.quart.asgi_request import AsgiRequest, target_of
from umbel.server.asgi import CANCELS
from umbel.server.limits.server_limits import Limits
from umbel.server.response.error_response import NO_UPLOAD_LEFT, disconnect_with

MockClock = trio.testing.MockClock
Message = dict[str, Any]
LEFT: Message = {"type": "http.disconnect"}


def part(data: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


class Server:
    """A foreign ASGI server: ``to_app`` holds messages to the application, ``sent`` those of the application."""

    def __init__(self, scope: Message | None = None, max_body: int | None = 100) -> None:
        self.to_app, self._receive = trio.open_memory_channel[Message](math.inf)
        self.sent: list[Message] = []
        self.fails: Exception | None = None
        self.reads = trio.Event()
        self.reads.set()
        scope = scope or http_scope()
        self.request = AsgiRequest(scope, self.receive, self.send, limits=Limits(), max_body=max_body)
        self._typed: InboundRequest = self.request

    async def receive(self) -> Message:
        return await self._receive.receive()

    async def send(self, message: Message) -> None:
        if self.fails is not None:
            raise self.fails
        self.sent.append(message)
        await self.reads.wait()

    def brings(self, *messages: Message) -> None:
        for message in messages:
            self.to_app.send_nowait(message)


class OurServer(Server):
    """Umbel's own server, as an ASGI extension."""

    gone = False
    crash_recorded = False
    discard_max = 0

    def __init__(self) -> None:
        self.filed: list[Any] = []
        self.at_most: int | None = None
        scope = http_scope()
        scope["extensions"][CANCELS] = self
        super().__init__(scope)

    def file(self, *record: Any) -> None:
        self.filed.append(record)

    def take_at_most(self, size: int) -> None:
        self.at_most = size

    expects_continue = True
    any_size = False
    stream_is_free = True

    def take_any_size(self) -> None:
        self.any_size = True

    def became_stream(self) -> bool:
        return self.stream_is_free

    def on_drain(self, callback: Any) -> None:
        callback()


def test_the_target_is_the_raw_path_or_else_the_encoded_path() -> None:
    assert target_of(http_scope(target="/a%2Fb?c=d")) == b"/a%2Fb?c=d"
    assert target_of({**http_scope(target="/caf%C3%A9"), "raw_path": None}) == b"/caf%C3%A9"


async def test_a_path_that_middleware_has_changed_is_left_to_quart(autojump_clock: MockClock) -> None:
    app, records = gateway(route("/r"), route("/api/r"), up=says(1))
    async with living(app):
        server = Server({**http_scope(target="/api/r"), "path": "/r"})
        server.brings(part(b"", more=False))
        await app({**http_scope(target="/api/r"), "path": "/r"}, server.receive, server.send)
    assert server.sent[0]["status"] == 200
    assert [record.request.route for record in records.requests] == ["/r"]


async def test_the_head_of_a_request_is_that_of_the_scope() -> None:
    scope = http_scope("POST", "/r?a", headers=[("content-length", "7")], http_version="2")
    scope["headers"] = [[b"X-Name", b"v"], *scope["headers"]]
    scope["scheme"] = "https"
    scope["extensions"]["tls"] = {"client_cert_chain": []}
    request = Server(scope).request
    assert (request.method, request.target, request.version, request.scheme) == ("POST", b"/r?a", "2", "https")
    assert request.fields[0] == (b"x-name", b"v")
    assert (request.peer, request.local) == (("127.0.0.1", 40000), ("127.0.0.1", 8000))
    assert (request.content_length, request.client_certificate) == (7, None)
    assert Server().request.content_length == 0
    assert Server(http_scope(http_version="2")).request.content_length is None
    assert Server(http_scope(headers=[("transfer-encoding", "chunked")])).request.content_length is None


async def test_parts_of_a_body_are_received_in_order_also_earlier_ones() -> None:
    server, got = Server(), []

    async def handle() -> None:
        await trio.testing.wait_all_tasks_blocked()
        while data := await server.request.receive():
            got.append(data)
            if len(got) == 1:
                server.brings(part(b"c"), part(b"", more=False))

    server.brings(part(b"a"), part(b"b"))
    await server.request.serve(handle)
    assert b"".join(got) == b"abc"


async def test_a_body_of_any_size_is_held_up_to_64_kib_until_it_is_received() -> None:
    server, size = Server(), 0

    async def handle() -> None:
        nonlocal size
        server.request.take_any_size()
        server.brings(*[part(bytes(10_000))] * 100)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.request._held) < 64 * 1024 + 10_000
        while size < 500_000:
            size += len(await server.request.receive())
        await server.request.start(200, [])
        await server.request.finish(b"enough")
        await trio.testing.wait_all_tasks_blocked()
        # After the response the rest is dropped, so that the server can end the request.
        assert server.to_app.statistics().current_buffer_used == 0
        assert len(server.request._held) <= 64 * 1024 + 10_000

    await server.request.serve(handle)


async def test_streams_are_those_of_umbels_own_server() -> None:
    drains: list[int] = []
    foreign, own = Server().request, OurServer()
    assert foreign.became_stream()
    foreign.on_drain(lambda: drains.append(1))
    assert (foreign.expects_continue, drains) == (False, [])
    own.stream_is_free = False
    assert not own.request.became_stream()
    own.request.on_drain(lambda: drains.append(2))
    own.request.take_any_size()
    assert (own.request.expects_continue, own.any_size, drains) == (True, True, [2])


async def test_an_unread_body_is_held_up_to_its_limit_and_then_refused() -> None:
    server = Server()

    async def handle() -> None:
        server.brings(*[part(b"x" * 60)] * 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert server.to_app.statistics().current_buffer_used == 0
        assert len(server.request._held) <= 100
        with pytest.raises(RequestEntityTooLarge):
            await server.request.receive()

    await server.request.serve(handle)


async def test_a_stalled_body_times_out_under_another_server(autojump_clock: MockClock) -> None:
    server = Server()

    async def handle() -> None:
        await trio.sleep(100)  # No task waits for the client meanwhile.
        began = trio.current_time()
        with pytest.raises(RequestTimeout):
            await server.request.receive()
        assert 0 < trio.current_time() - began < 60

    await server.request.serve(handle)


async def test_each_waiting_task_gets_the_error_of_a_client_that_leaves() -> None:
    for waits in ("in nothing", "in receive", "in send", "late"):
        server, called, left = Server(), [], trio.Event()
        request = server.request

        async def handle(
            waits: str = waits, server: Server = server, called: list[str] = called, left: trio.Event = left
        ) -> None:
            request = server.request
            request.on_gone(lambda: called.append("gone") or left.set())  # type: ignore[func-returns-value]
            if waits == "in receive":
                with pytest.raises(ClientGoneError):
                    await request.receive()
            elif waits == "in send":
                await request.start(200, [])
                server.reads = trio.Event()
                with pytest.raises(ClientGoneError):
                    await request.send(b"x")
            else:
                await left.wait()
            assert request.gone
            if waits == "late":
                request.on_gone(lambda: called.append("at once"))
            with pytest.raises(ClientGoneError):
                request.respond(200, [], b"")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.serve, handle)
            await trio.testing.wait_all_tasks_blocked()
            server.brings(LEFT)
        assert called == (["gone", "at once"] if waits == "late" else ["gone"])
        assert not request.response_complete


@pytest.mark.parametrize("error", [OSError("broken pipe"), ClientGoneError("gone")])
async def test_an_oserror_of_send_means_that_the_client_has_left(error: OSError) -> None:
    server = Server()
    server.fails = error
    assert server.request.respond(200, [], b"x") is False
    with pytest.raises(ClientGoneError):
        await server.request.drained()
    assert server.request.gone
    assert server.request.can_respond


async def test_a_response_is_sent_unchanged_and_without_content_for_head() -> None:
    for method, status, sent in (("GET", 200, b"abc"), ("HEAD", 200, b""), ("GET", 304, b"")):
        server = Server(http_scope(method))
        request = server.request
        assert request.respond(500, [(b"x-never", b"sent")], b"") is False
        assert (request.status, request.can_respond) == (500, True)
        request.respond(status, [(b"x-a", b"b")], b"abc")
        await request.drained()
        head, body = server.sent
        assert (head["status"], head["headers"], body["body"]) == (status, [(b"x-a", b"b")], sent)
        assert (request.status, request.bytes_sent, request.response_complete) == (status, len(sent), True)
        server = Server(http_scope(method))
        request = server.request
        await request.start(status, [])
        assert server.sent == []
        await request.send(b"abc")
        await request.finish(b"", [(b"x-trailer", b"t")])
        assert b"".join(message.get("body", b"") for message in server.sent) == sent
        with pytest.raises(RuntimeError, match="begun already"):
            await request.start(200, [])


async def test_an_operation_that_asgi_lacks_raises_an_error() -> None:
    server = Server()
    with pytest.raises(RuntimeError, match="cannot give the bytes"):
        await server.request.take(101, [])
    with pytest.raises(RuntimeError, match="103 with Link fields; 102 cannot be sent"):
        await server.request.inform(102, [])
    await server.request.inform(103, [(b"link", b"</a>")])
    assert server.sent == []
    server.request._scope["extensions"]["http.response.early_hint"] = {}  # type: ignore[index]  # a test's own dict
    await server.request.inform(103, [(b"link", b"</a>")])
    await server.request.inform(100, [])  # The server sends it.
    server.request.inform_soon(103, [(b"link", b"</a>")])
    assert server.sent == [{"type": "http.response.early_hint", "links": [b"</a>"]}]


async def test_under_our_server_only_the_body_is_received_and_the_record_is_filed() -> None:
    server = OurServer()
    request = server.request
    assert not request.watches
    request.discard_max, request.crash_recorded = 5, True
    request.take_at_most(7)
    assert (server.discard_max, server.crash_recorded, server.at_most) == (5, True, 7)

    async def handle() -> None:
        server.brings(part(b""), part(b"a"), part(b"b", more=False), LEFT)
        assert [await request.receive() for _ in range(3)] == [b"a", b"b", b""]
        assert not request.gone
        server.gone = True
        assert request.gone
        request.file_record(Records(), request_ended())

    await request.serve(handle)
    assert len(server.filed) == 1
    refused = OurServer()
    refused.brings(disconnect_with(NO_UPLOAD_LEFT, "the-id"))
    with pytest.raises(AnsweredByServerError) as caught:
        await refused.request.receive()
    assert (caught.value.status, caught.value.kind, caught.value.request_id) == (503, Kind.OVERLOADED, "the-id")


async def test_under_another_server_the_record_is_written_at_once() -> None:
    records = Records()
    Server().request.file_record(records, request_ended())
    assert len(records.requests) == 1


# Before Quart or through ASGI.


@pytest.fixture
def through_asgi(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect the targets of the requests that reach the application through ASGI."""
    targets: list[bytes] = []

    async def serve_asgi(app: Umbel, request: InboundRequest) -> None:
        targets.append(request.target)

    monkeypatch.setattr("umbel.gateway.app.serve_asgi", serve_asgi)
    return targets


async def test_a_request_for_no_configured_route_is_given_to_asgi_app(through_asgi: list[bytes]) -> None:
    app, _ = gateway(route(), up=says(1))
    assert isinstance(app, InboundApplication)
    async with living(app):
        request = MemoryRequest(target="/r")
        await request.served_by(app)
        assert (request.answer.status, through_asgi) == (200, [])
        for method, target in [("GET", "/nowhere"), ("OPTIONS", "/r"), ("GET", "//r"), ("GET", "/r?a b")]:
            await MemoryRequest(method, target).served_by(app)
        await MemoryRequest(target="/r", fields=[("host", "a..b")]).served_by(app)
    assert through_asgi == [b"/nowhere", b"/r", b"//r", b"/r?a b", b"/r"]


async def test_a_wrapper_of_asgi_app_gets_every_request(through_asgi: list[bytes]) -> None:
    class Own(Umbel):
        async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
            await super().asgi_app(scope, receive, send)

    plain, _ = gateway(route(), up=says(1))
    own = Own(__name__, plain.gateway_config, transports=plain.given_transports)
    wrapped, _ = gateway(route(), up=says(1))
    inner = wrapped.asgi_app

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    wrapped.asgi_app = middleware  # type: ignore[method-assign]  # Quart's own way to wrap an application
    for app in (own, wrapped):
        async with living(app):
            await MemoryRequest(target="/r").served_by(app)
            assert (await ask(app, target="/r")).status == 200
    assert through_asgi == [b"/r", b"/r"]


@pytest.mark.parametrize("entrance", ["__call__", "asgi_app"])
@pytest.mark.parametrize("hooks", ["auto", "python"])
async def test_a_subclass_with_its_own_asgi_app_gets_every_request(
    entrance: str, hooks: str, through_asgi: list[bytes]
) -> None:
    class Replaced(Umbel):
        pass

    async def entered(self: Umbel, scope: Any, receive: Any, send: Any) -> None:
        await getattr(Umbel, entrance)(self, scope, receive, send)

    plain, _ = gateway(route(), up=says(1), server={"hooks": hooks})
    app = Replaced(__name__, plain.gateway_config, transports=plain.given_transports)
    setattr(Replaced, entrance, entered)
    async with living(app):
        await MemoryRequest(target="/r").served_by(app)
    assert through_asgi == [b"/r"]
