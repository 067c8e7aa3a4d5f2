"""Random messages through a proxy route: what comes out is what went in, but for hop-by-hop fields and framing.

One gateway serves all examples of a test. Hypothesis runs in a thread of its own. ``make soak`` tries 2,000 examples
of each.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import h11
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.gateway.proxies import Proxied, proxied
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import Peer
from tests.support.upstream.strict_upstream import Arrived, StrictUpstream

Pairs = list[tuple[bytes, bytes]]
EXAMPLES = settings(
    max_examples=2000 if SOAK else 40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHANGED = frozenset(
    b"content-length transfer-encoding connection keep-alive te trailer upgrade expect host date via forwarded proxy"
    b" x-request-id traceparent tracestate x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip remote-addr"
    b" x-content-type-options referrer-policy location http2-settings".split()
)
"""Fields that the gateway writes or changes."""


def _may_pass(name: bytes) -> bool:
    lower = name.lower()
    return lower not in CHANGED and not lower.startswith((b"proxy-", b"x-forwarded-", b"accept"))


_TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^`|~"
_KNOWN = [b"Set-Cookie", b"ETag", b"Content-Encoding", b"Cache-Control", b"Vary", b"X-Own", b"Server", b"Age", b"Link"]
NAMES = st.one_of(
    st.sampled_from(_KNOWN), st.text(_TOKEN, min_size=1, max_size=12).map(str.encode).filter(_may_pass)
).filter(_may_pass)
VALUES = st.one_of(
    st.binary(max_size=30).map(lambda raw: bytes(c for c in raw if c == 9 or 32 <= c != 127).strip(b" \t")),
    st.sampled_from([b"", b"1", b"a, b", b'W/"x"', b"x" * 1000]),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", bytes(range(256)) * 300]),
)
CUTS = st.lists(st.integers(1, 400), max_size=4)
"""Where the bytes of a message are split."""


class Chunks(NamedTuple):
    """A chunked framing."""

    sizes: list[int]
    extension: bytes
    trailers: Pairs

    def frame(self, body: bytes) -> bytes:
        data = b""
        for number, piece in enumerate(pieces(body, self.sizes)):
            size = (b"%x", b"%X", b"0%x")[number % 3] % len(piece)
            data += b"%b%b\r\n%b\r\n" % (size, self.extension, piece)
        return data + b"0\r\n" + lines(self.trailers) + b"\r\n"


CHUNKS = st.builds(
    Chunks,
    st.lists(st.integers(1, 50), max_size=5),
    st.sampled_from([b"", b";a", b";a=1", b'; a="x; y"']),
    st.lists(st.tuples(st.sampled_from([b"X-Sum", b"X-T"]), VALUES), max_size=2),
)


class Sent(NamedTuple):
    """A response of the upstream."""

    method: str
    interim: list[tuple[int, Pairs]]
    status: int
    reason: bytes
    fields: Pairs
    body: bytes
    framing: Chunks | str
    cuts: list[int]

    @property
    def bodiless(self) -> bool:
        return self.method == "HEAD" or self.status in (204, 304)

    @property
    def closes(self) -> bool:
        return self.framing == "close" and not self.bodiless

    def serialized(self) -> bytes:
        data = b""
        for status, fields in self.interim:
            data += b"HTTP/1.1 %d Early\r\n%b\r\n" % (status, lines(fields))
        data += b"HTTP/1.1 %d %b\r\n%b" % (self.status, self.reason, lines(self.fields))
        if self.framing == "length" and self.status != 204:
            data += b"Content-Length: %d\r\n" % len(self.body)
        elif isinstance(self.framing, Chunks) and self.status != 204:
            data += b"Transfer-Encoding: chunked\r\n"
        data += b"\r\n"
        if self.bodiless:
            return data
        return data + (self.framing.frame(self.body) if isinstance(self.framing, Chunks) else self.body)


RESPONSES = st.builds(
    Sent,
    st.sampled_from(["GET", "GET", "HEAD", "POST"]),
    st.lists(st.tuples(st.sampled_from([102, 103, 103, 104, 199]), FIELDS), max_size=2),
    st.one_of(st.sampled_from([200, 204, 206, 304]), st.integers(200, 599)),
    st.sampled_from([b"OK", b"", b"Caf\xe9 \t!", b"200 200"]),
    FIELDS,
    BODIES,
    st.one_of(CHUNKS, st.sampled_from(["length", "close"])),
    CUTS,
)


class Told(NamedTuple):
    """A request of the client."""

    method: bytes
    target: bytes
    fields: Pairs
    body: bytes
    framing: Chunks | str
    cuts: list[int]

    def serialized(self) -> bytes:
        data = b"%b %b HTTP/1.1\r\nHost: gateway.test\r\n%b" % (self.method, self.target, lines(self.fields))
        if isinstance(self.framing, Chunks):
            return data + b"Transfer-Encoding: chunked\r\n\r\n" + self.framing.frame(self.body)
        if self.framing == "length":
            return data + b"Content-Length: %d\r\n\r\n%b" % (len(self.body), self.body)
        return data + b"\r\n"


_SEGMENT = st.lists(
    st.one_of(
        st.sampled_from(string.ascii_letters + string.digits + "-_~!$&'()*+,;=:@"),
        st.sampled_from(["%20", "%41", "%c3%a9", "%C3%A9", "%3F", "%23", "%25", "%7E", "%3b"]),
    ),
    min_size=1,
    max_size=6,
).map("".join)
_QUERY = [chr(code) for code in range(33, 127) if chr(code) != "#"]
TARGETS = st.builds(
    lambda segments, query: f"/{'/'.join(segments)}{query}".encode(),
    st.lists(_SEGMENT, min_size=1, max_size=3),
    st.one_of(
        st.just(""),
        st.text([chr(c) for c in range(33, 127) if chr(c) != "#"], min_size=1, max_size=12).map("?{}".format),
    ),
)
REQUESTS = st.builds(
    Told,
    st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]),
    TARGETS,
    st.lists(st.tuples(NAMES.filter(lambda name: b"_" not in name), VALUES), max_size=6),
    BODIES,
    st.one_of(CHUNKS, st.sampled_from(["length", "none"])),
    CUTS,
)


def lines(fields: Pairs) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in fields)


def lower(fields: Sequence[tuple[bytes, bytes]]) -> Pairs:
    return [(name.lower(), value) for name, value in fields]


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``data`` in pieces of these sizes, and the rest; no empty piece."""
    cut = []
    for size in sizes:
        cut.append(data[:size])
        data = data[size:]
    return [piece for piece in (*cut, data) if piece]


def of_sender(fields: Sequence[tuple[bytes, bytes]], sent: Pairs) -> Pairs:
    """The received fields whose names the sender has used; all others must be the gateway's own."""
    names = {name for name, _ in lower(sent)}
    assert {name for name, _ in fields} - names <= CHANGED
    return [(name, value) for name, value in fields if name in names]


async def send_in_pieces(stream: Any, data: bytes, sizes: Sequence[int]) -> None:
    for piece in pieces(data, sizes):
        await stream.send_all(piece)
        await trio.lowlevel.checkpoint()


class Got(NamedTuple):
    """A response as the client gets it."""

    interim: list[tuple[int, Pairs]]
    status: int
    fields: Pairs
    body: bytes
    trailers: Pairs


async def ask_http1(port: int, method: str) -> Got:
    async with connected(port) as client:
        await client.send(method, "/x", [("te", "trailers"), ("connection", "te")])
        parser = client._h11
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        interim: list[tuple[int, Pairs]] = []
        body = b""
        while isinstance(event := await client.event(), h11.InformationalResponse):
            interim.append((event.status_code, list(event.headers)))
        assert isinstance(event, h11.Response)
        head = event
        while isinstance(event := await client.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        return Got(interim, head.status_code, list(head.headers), body, list(event.headers))


async def ask_http2(port: int, method: str) -> Got:
    async with h2_client(port) as client:
        answer = await client.fetch(method, "/x", [("te", "trailers")])
        assert answer.ended
        head, trailers = (
            [(name.encode(), value.encode("latin-1")) for name, value in fields]
            for fields in (answer.headers, answer.trailers)
        )
        return Got([(status, []) for status in answer.informational], answer.status, head, answer.body, trailers)


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
async def test_any_response_comes_out_as_it_went_in(protocol: str) -> None:
    now: list[Sent] = []

    async def upstream(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            sent = now[-1]
            await send_in_pieces(peer.stream, sent.serialized(), sent.cuts)
            if sent.closes:
                return

    ask = ask_http1 if protocol == "HTTP/1.1" else ask_http2

    def check(it: Proxied) -> None:
        @EXAMPLES
        @given(RESPONSES)
        def each(sent: Sent) -> None:
            now.append(sent)
            got = trio.from_thread.run(ask, it.port, sent.method)
            assert got.status == sent.status
            assert of_sender(got.fields, sent.fields) == lower(sent.fields)
            assert got.body == (b"" if sent.bodiless else sent.body)
            lengths = [value for name, value in got.fields if name == b"content-length"]
            if sent.framing == "length" and sent.status != 204:
                assert lengths == [b"%d" % len(sent.body)]
            if isinstance(sent.framing, Chunks) and not sent.bodiless:
                assert got.trailers == lower(sent.framing.trailers)
            if protocol == "HTTP/1.1":
                assert got.interim == [(status, lower(fields)) for status, fields in sent.interim]
            else:
                assert [status for status, _ in got.interim] == [status for status, _ in sent.interim]

        each()

    async with proxied(upstream) as it:
        await trio.to_thread.run_sync(check, it)


async def test_any_request_arrives_as_it_was_sent() -> None:
    upstream = StrictUpstream()

    async def ask(port: int, told: Told) -> int:
        async with connected(port) as client:
            await send_in_pieces(client.stream, told.serialized(), told.cuts)
            return (await client.reply()).status

    def check(it: Proxied) -> None:
        @EXAMPLES
        @given(REQUESTS)
        def each(told: Told) -> None:
            upstream.requests.clear()
            assert trio.from_thread.run(ask, it.port, told) == 200
            assert not upstream.faults
            (arrived,) = upstream.requests
            assert (arrived.method, arrived.target) == (told.method, told.target)
            assert arrived.body == (b"" if told.framing == "none" else told.body)
            assert of_sender(arrived.fields, told.fields) == lower(told.fields)
            assert_framing(arrived, told)

        each()

    async with proxied(upstream) as it:
        await trio.to_thread.run_sync(check, it)


def assert_framing(arrived: Arrived, told: Told) -> None:
    """A known length stays known, and a chunked body chunked."""
    lengths, codings = arrived.all(b"content-length"), arrived.all(b"transfer-encoding")
    if isinstance(told.framing, Chunks):
        assert (lengths, codings) == ([], [b"chunked"])
    else:
        assert not codings
        assert lengths in ([], [b"%d" % len(arrived.body)])
