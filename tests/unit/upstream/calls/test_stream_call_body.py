"""Streamed request bodies: framing, flow control, failures and early responses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.calls import fields
from tests.support.upstream.raw_server import Peer, response
from tests.support.upstream.stream_calls import Streams, answer_each_piece, head, opened, rest_of, streaming
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner
from umbel.core.failure_kinds import Kind
from umbel.core.inbound import ClientGoneError
from umbel.net.stream import Stream
from umbel.upstream import BadRequest, BreakerOpen, BreakerRules, ConnectFailed, ConnectionReset, Hedge, Overflow, Retry
from umbel.upstream.calls.stream_call import RequestBody, StreamCall
from umbel.upstream.pool.connection import INLINE_MAX
from umbel.upstream.replicas.origin import Origin


class Pieces:
    """An httpx body that keeps whether its iterator is open."""

    def __init__(self, *pieces: bytes | Exception, after: float = 0.0) -> None:
        self._pieces = pieces
        self._after = after
        self.begun = self.open = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        self.open += 1
        try:
            for piece in self._pieces:
                await trio.sleep(self._after)
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.open -= 1


class Seen:
    """An upstream that answers after the whole request, and keeps the received requests.

    ``pause``: the seconds between the head of a response and its body.
    """

    def __init__(self, *, status: bytes = b"200 OK", pause: float = 0.0) -> None:
        self._status = status
        self._pause = pause
        self.requests: list[tuple[bytes, bytes]] = []

    async def serve(self, peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            self.requests.append(request)
            await peer.send(head(2, status=self._status))
            await trio.sleep(self._pause)
            await peer.send(b"ok")


LENGTH = {"Content-Length": "6"}


@pytest.mark.parametrize(
    ("headers", "framing", "sent"),
    [
        (LENGTH, b"content-length: 6", b"onetwo"),
        ({}, b"transfer-encoding: chunked", b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
    ],
    ids=["by its length", "in chunks"],
)
async def test_a_streamed_body_is_framed_by_its_length_or_chunked(
    headers: dict[str, str], framing: bytes, sent: bytes, autojump_clock
) -> None:
    seen = Seen()
    body = Pieces(b"one", b"", b"two", after=1.0)
    async with streaming(seen.serve) as streams:
        call = await streams.open(method="POST", headers=headers, body=body)
        assert await rest_of(call) == b"ok"
        assert streams.client.statistics().pool.idle == 1, "and the connection serves again"
    ((request, content),) = seen.requests
    assert (request.lower().count(framing), content) == (1, sent)
    assert (body.begun, body.open) == (1, 0)


@pytest.mark.parametrize("headers", [LENGTH, {}], ids=["by its length", "in chunks"])
async def test_an_httpx_request_with_an_async_iterator_is_streamed_both_ways(
    headers: dict[str, str], autojump_clock
) -> None:
    seen = Seen(pause=1.0)
    body = Pieces(b"one", b"two", after=1.0)
    async with streaming(seen.serve) as streams, httpx.AsyncClient(transport=streams.transport) as client:
        async with client.stream("PUT", "http://any/p?q", headers=headers, content=aiter(body)) as answer:
            assert streams.held()[:3] == (1, 1, 1)
            assert await answer.aread() == b"ok"
        assert streams.held()[:3] == (0, 0, 0)
    ((request, content),) = seen.requests
    assert request.startswith(b"PUT /p?q HTTP/1.1\r\nHost: a\r\n")
    assert content == (b"onetwo" if headers else b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_synchronous_stream_is_refused(autojump_clock) -> None:
    async with streaming(Seen().serve) as streams:
        request = httpx.Request("POST", "http://any/", content=iter([b"x"]))
        with pytest.raises(BadRequest):
            await streams.transport.handle_async_request(request)


@pytest.mark.parametrize("pieces", [(b"one", b"tw"), (b"one", b"twoo")], ids=["shorter", "longer"])
async def test_a_body_that_differs_from_its_content_length_is_a_bad_request(
    pieces: tuple[bytes, ...], autojump_clock
) -> None:
    body = Pieces(*pieces)
    async with streaming(Seen().serve) as streams:
        with pytest.raises(BadRequest):
            await streams.open(method="POST", headers=LENGTH, body=body)
        assert streams.held() == (0, 0, 0, 1)
        assert (streams.dial.open, body.open) == (0, 0)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(RuntimeError("a bug"), Kind.INTERNAL), (ClientGoneError("the client has left"), Kind.CLIENT_GONE)],
    ids=["a bug", "the client has left"],
)
async def test_an_exception_of_the_body_fails_the_call_and_does_not_count(
    failure: Exception, kind: Kind, autojump_clock
) -> None:
    body = Pieces(b"one", failure, after=1.0)
    async with streaming(Seen().serve, breaker=BreakerRules(min_requests=1), retry=Retry()) as streams:
        with pytest.raises(type(failure)) as caught:
            await streams.open(method="PUT", body=body)
        assert caught.value is failure
        assert (streams.dial.open, body.open, body.begun) == (0, 0, 1)
        assert [each.kind for each in streams.made[0].attempts] == [kind]
        breaker = streams.client.statistics().breaker
        assert breaker is not None
        assert breaker.failures == 0


# Sent piece by piece


async def test_at_most_one_piece_of_the_body_waits_for_the_connection(autojump_clock) -> None:
    wants = trio.Event()
    got = b""

    async def handler(peer: Peer) -> None:
        nonlocal got
        await peer.read_head()
        await wants.wait()
        got = await peer.read_until(b"0\r\n\r\n")
        await peer.send(response(b"ok"))

    body = RequestBody()
    sent: list[int] = []
    async with streaming(handler, lockstep=True) as streams, trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(4):
                await body.send(b"%d" % number)
                sent.append(number)
            body.send_eof()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert sent == [], "there is no connection yet"
        made = streams.start(method="POST", body=body, mode="stream")
        await trio.testing.wait_all_tasks_blocked()
        assert sent == [0], "the first is on its way"
        wants.set()
        call = await made.end()
        assert sent == [0, 1, 2, 3]
        assert await rest_of(call) == b"ok"  # type: ignore[arg-type]
    assert got == b"".join(b"1\r\n%d\r\n" % number for number in range(4)) + b"0\r\n\r\n"


async def test_request_and_response_are_streamed_at_the_same_time(autojump_clock) -> None:
    async with streaming(answer_each_piece) as streams:
        body = RequestBody()
        call = await streams.open(method="POST", body=body)
        for piece in (b"one", b"two", b"three"):
            await body.send(piece)
            assert await call.receive() == piece.upper()
        body.send_eof()
        assert await call.receive() == b""
        assert streams.client.statistics().pool.idle == 1


async def answer_early(peer: Peer) -> None:
    """Send the head of a response whose body follows later."""
    await peer.read_head()
    await peer.send(response(b"no", status=b"413 Too Large"))
    await peer.closed()


@pytest.mark.parametrize("ends", ["to its end", "taken", "closed", "cancelled"])
async def test_an_early_response_is_received_and_ends_the_body(ends: str, autojump_clock) -> None:
    async with streaming(answer_early) as streams, trio.open_nursery() as nursery:
        body = RequestBody()
        broken = trio.Event()

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await body.send(b"x" * 1000)
                    await trio.sleep(1)
            broken.set()

        nursery.start_soon(send)
        call = await streams.open(method="POST", body=body)
        assert (call.status, call.response_ended) == (413, True)
        assert streams.held() == (1, 1, 1, 0)
        assert not broken.is_set()
        if ends == "to its end":
            assert await rest_of(call) == b"no"
        elif ends == "taken":
            assert call.take_rest() == b"no"
            await call.aclose()
        elif ends == "closed":
            await call.aclose()
        else:
            call.cancel("client-gone")
        assert streams.held() == (0, 0, 0, 1)
        assert streams.dial.open == 0, "what is left of the body would be read as the next request"
        with trio.fail_after(2):
            await broken.wait()


async def test_the_connection_is_reused_if_the_body_ends_after_an_early_head(autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(head(2))
            await peer.read_until(b"0\r\n\r\n")
            await peer.send(b"ok")

    async with streaming(handler) as streams:
        for _ in range(2):
            body = RequestBody()
            call = await streams.open(method="POST", body=body)
            await body.send(b"x")
            body.send_eof()
            assert await rest_of(call) == b"ok"
        assert [each.reused for made in streams.made for each in made.attempts] == [False, True]


async def test_an_exception_of_the_body_after_an_early_head_fails_receive(autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(head(6) + b"one")
        await peer.closed()

    failure = RuntimeError("the client has gone")
    async with streaming(handler) as streams:
        call = await streams.open(method="POST", body=Pieces(b"x", failure, after=1.0))
        assert await call.receive() == b"one"
        with pytest.raises(RuntimeError) as caught:
            await call.receive()
        assert caught.value is failure
        assert streams.held() == (0, 0, 0, 1)
        assert streams.dial.open == 0


@pytest.mark.parametrize("failure", [None, RuntimeError("in the end")], ids=["unwinds", "fails"])
async def test_aclose_waits_for_the_body_to_unwind(failure: Exception | None, autojump_clock) -> None:
    unwound = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal unwound
        try:
            yield b"x"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            unwound = True
            if failure is not None:
                raise failure

    async with streaming(answer_early) as streams:
        closed = await streams.open(method="POST", body=body())
        await closed.aclose()
        assert unwound
        unwound = False
        received = await streams.open(method="POST", body=body())
        if failure is None:
            assert await rest_of(received) == b"no"
        else:
            with pytest.raises(RuntimeError) as caught:
                await rest_of(received)
            assert caught.value is failure
        assert unwound


async def test_a_peer_that_stops_reading_and_closes_fails_the_call_and_ends_the_body(autojump_clock) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()

    body = Pieces(*[b"x"] * 100, after=1.0)
    async with streaming(handler) as streams:
        with pytest.raises(ConnectionReset):
            await streams.open(method="POST", body=body)
        await trio.testing.wait_all_tasks_blocked()
        assert (body.begun, body.open) == (1, 0)
        assert streams.held() == (0, 0, 0, 1)


# Retries


class FailingFirst:
    """A dial whose first connections fail."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.streams: Streams

    async def __call__(self, origin: Origin, timeout: float | None) -> Stream:
        await trio.sleep(1)
        if self._failures:
            self._failures -= 1
            raise ConnectFailed("refused")
        return await self.streams.dial(origin, timeout)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_failed_connect_is_retried_because_the_body_has_not_begun(method: str, autojump_clock) -> None:
    seen, dial, body = Seen(), FailingFirst(2), Pieces(b"one", b"two")
    async with streaming(seen.serve, dial=dial, retry=Retry(attempts=3)) as streams:
        dial.streams = streams
        call = await streams.open(method=method, headers=LENGTH, body=body)
        assert await rest_of(call) == b"ok"
        assert [each.kind for each in streams.made[0].attempts] == [Kind.CONNECT, Kind.CONNECT, None]
    assert [content for _, content in seen.requests] == [b"onetwo"]
    assert body.begun == 1


async def test_a_body_that_a_connection_has_begun_to_send_is_not_sent_again(autojump_clock) -> None:
    async def closes(peer: Peer) -> None:
        await peer.read_head()

    body = Pieces(b"one", b"two")
    async with streaming(closes, retry=Retry(attempts=3)) as streams:
        with pytest.raises(ConnectionReset):
            await streams.open(method="PUT", body=body)
        assert len(streams.dial.streams) == body.begun == 1


async def test_a_retryable_status_after_a_streamed_body_is_passed_on(autojump_clock) -> None:
    seen, body = Seen(status=b"503 Busy"), Pieces(b"onetwo")
    async with streaming(seen.serve, retry=Retry(attempts=3)) as streams:
        call = await streams.open(method="PUT", headers=LENGTH, body=body)
        assert (call.status, await rest_of(call)) == (503, b"ok")
    assert len(seen.requests) == 1


@pytest.mark.parametrize("size", [5, 2 * INLINE_MAX])
@pytest.mark.parametrize("ends", ["status", "reset"])
async def test_content_that_is_to_be_sent_once_is_not_retried_after_it_was_sent(
    size: int, ends: str, autojump_clock
) -> None:
    seen: list[bytes] = []

    async def serve(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            if request[0].startswith(b"POST"):
                await peer.send(response(b"first"))
                continue
            seen.append(request[1])
            await trio.sleep(1)
            if ends == "reset":
                return
            await peer.send(response(b"busy", status=b"503 Busy"))

    async with streaming(serve, retry=Retry(attempts=3), hedge=Hedge(after=0.5)) as streams:
        await rest_of(await opened(streams.client, "POST"))  # Its connection is kept.
        sent = PreparedRequest("PUT", b"/", fields({}), b"x" * size, once=True)
        owner = SingleCallOwner()
        call = await owner.perform(streams.client.new_call(sent, CallContext(owner, "call", "upstream"), "stream"))
    assert (call.status, type(call.error)) == ((503, type(None)) if ends == "status" else (None, ConnectionReset))
    assert seen == [b"x" * size]
    assert len(streams.dial.streams) == 1


async def test_content_that_is_to_be_sent_once_is_retried_after_a_failed_connect(autojump_clock) -> None:
    seen, dial = Seen(), FailingFirst(2)
    async with streaming(seen.serve, dial=dial, retry=Retry(attempts=3)) as streams:
        dial.streams = streams
        sent = PreparedRequest("POST", b"/", fields({}), b"one", once=True)
        owner = SingleCallOwner()
        call = await owner.perform(streams.client.new_call(sent, CallContext(owner, "call", "upstream"), "stream"))
        assert isinstance(call, StreamCall)
        assert (call.status, await rest_of(call)) == (200, b"ok")
    assert [content for _, content in seen.requests] == [b"one"]


@pytest.mark.parametrize(("streamed", "reused"), [(True, False), (False, True)])
async def test_a_streamed_body_takes_no_connection_that_the_peer_may_soon_close(
    streamed: bool, reused: bool, autojump_clock
) -> None:
    async with streaming(Seen().serve) as streams:
        for _ in range(2):
            body = Pieces(b"onetwo")
            if streamed:
                await rest_of(await streams.open(method="PUT", headers=LENGTH, body=body))
            else:
                await rest_of(await streams.open(method="PUT", content=b"onetwo"))
            await trio.sleep(3)
        assert [each.reused for made in streams.made for each in made.attempts] == [False, reused]


@pytest.mark.parametrize("body_sent", [False, True], ids=["a GET", "a body"])
async def test_an_ended_kept_connection_is_replaced_only_for_a_repeatable_request(
    body_sent: bool, autojump_clock
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"ok"))
        if peer.number:
            await peer.closed()
        await peer.read_head()

    async with streaming(handler) as streams:
        await rest_of(await streams.open())
        if body_sent:
            with pytest.raises(ConnectionReset):
                await streams.open(method="PUT", body=Pieces(b"x"))
        else:
            assert await rest_of(await streams.open()) == b"ok"
        (attempt,) = streams.made[1].attempts
        assert attempt.reused is body_sent
        assert streams.client.statistics().pool.replaced == (not body_sent)


# Bodies that are never sent


async def sends_in_vain(body: RequestBody) -> None:
    """Check that ``send`` raises for the body of a failed call."""
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await body.send(b"x")


async def test_send_raises_if_no_connection_was_made(autojump_clock) -> None:
    body = RequestBody()
    async with streaming(Seen().serve, dial=FailingFirst(1)) as streams, trio.open_nursery() as nursery:
        nursery.start_soon(sends_in_vain, body)
        with pytest.raises(ConnectFailed):
            await streams.open(method="POST", body=body)


async def test_send_raises_if_the_call_is_not_admitted(autojump_clock) -> None:
    async def silent(peer: Peer) -> None:
        await peer.closed()

    async with streaming(silent, max_concurrency=1, max_queue=1) as streams:
        first, queued, body = streams.start(), streams.start(mode="stream", body=RequestBody()), RequestBody()
        with pytest.raises(Overflow):
            await streams.open(method="POST", body=body)
        await sends_in_vain(body)
        queued.cancel("client-gone")
        first.cancel("client-gone")
    async with streaming(silent, breaker=BreakerRules(min_requests=1)) as streams:
        await streams.start(limit=1.0, budget=60).end()
        with pytest.raises(BreakerOpen):
            await streams.open(method="POST", body=(body := RequestBody()))
        await sends_in_vain(body)


async def test_a_cancel_while_the_body_is_sent_closes_the_connection_and_the_body(autojump_clock) -> None:
    body = Pieces(*[b"x"] * 100, after=1.0)
    async with streaming(Seen().serve) as streams:
        with trio.move_on_after(2.5):
            await opened(streams.client, "POST", body)
        assert (body.open, streams.dial.open) == (0, 0)
