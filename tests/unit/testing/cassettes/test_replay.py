"""Replay of cassettes in virtual time, and what a cassette may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support.testing.pages import one_call
from umbel.core.diagnostics.redact import REDACTED, Redactor
from umbel.testing import CassetteError, UnscriptedRequestError, cassette, gateway
from umbel.testing.cassettes.exchange import Exchange, Header, Part, encode, shown_fields

PROXY = '[upstreams.u]\nurls = ["http://u"]\n[[routes]]\npath = "/<path:rest>"\nproxy.upstream = "u"\n'
JSON = (("content-type", "application/json"),)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a cassette and return its path."""

    def write(*exchanges: Exchange, header: Header = Header(1, bodies=True)) -> Path:  # noqa: B008 - frozen
        path = tmp_path / "cassette.jsonl"
        path.write_bytes(b"".join(map(encode, (header, *exchanges))))
        return path

    return write


def answer(at: float, body: bytes, *, head_at: float = 0.25, target: str = "/it") -> Exchange:
    part = Part.of(head_at, body, bodies=True)
    return Exchange("u", at, "GET", target, 200, head_at, JSON, (part,), ended_at=head_at)


async def test_equal_requests_get_their_responses_in_the_order_of_arrival(
    write: Write, autojump_clock: MockClock
) -> None:
    # They stand on the cassette in the order of their ends.
    path = write(answer(2, b"2"), answer(1, b"1", head_at=3))
    async with gateway(one_call(), cassette(path)) as client:
        assert [(await client.get("/")).json()["it"] for _ in range(3)] == [1, 2, 2]
    assert [trace.duration for trace in client.traces()] == [3, 0.25, 0.25]


async def test_parts_come_at_their_times(write: Write, autojump_clock: MockClock) -> None:
    parts = tuple(Part.of(at, data, bodies=True) for at, data in ((1, b"one"), (1.5, b"\xff"), (4, b"three")))
    path = write(Exchange("u", 0, "GET", "/x?a=1", 200, 1, (), parts, ended_at=4))
    async with gateway(PROXY, cassette(path)) as client:
        began = trio.current_time()
        async with client.stream("GET", "/x?a=1") as reply:
            pieces = [(piece, trio.current_time() - began) async for piece in reply.aiter_raw()]
    assert pieces == [(b"one", 1), (b"\xff", 1.5), (b"three", 4)]


@pytest.mark.parametrize("failure", ["reset", "malformed", "too-big", "timeout"])
async def test_a_failure_without_a_response_is_replayed(failure: str, write: Write, autojump_clock: MockClock) -> None:
    path = write(Exchange("u", 0, "GET", "/it", failure=failure, ended_at=2))
    async with gateway(one_call(), cassette(path)) as client:
        await client.get("/")
    trace = client.trace()
    assert (trace.kind, trace.duration) == (failure, 10 if failure == "timeout" else 2)


async def test_a_response_that_broke_off_breaks_off(write: Write, autojump_clock: MockClock) -> None:
    parts = (Part.of(1, b"part", bodies=True),)
    path = write(Exchange("u", 0, "GET", "/x", 200, 1, (), parts, "reset", ended_at=3))
    async with gateway(PROXY, cassette(path)) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/x")
    assert (client.trace().kind, client.trace().duration) == ("reset", 3)


async def test_a_response_that_was_given_up_hangs(write: Write, autojump_clock: MockClock) -> None:
    path = write(Exchange("u", 0, "GET", "/it", 200, 1, JSON, (Part.of(1, b"[", bodies=True),), "timeout", ended_at=2))
    async with gateway(one_call(), cassette(path)) as client:
        await client.get("/")
    assert (client.trace().kind, client.trace().duration) == ("timeout", 10)


async def test_a_failed_connection_comes_after_as_many_requests(write: Write, autojump_clock: MockClock) -> None:
    refused = Exchange("u", 2, failure="connect", ended_at=0.5)
    path = write(answer(1, b"1"), refused, answer(3, b"2"))
    async with gateway(one_call(), cassette(path)) as client:
        assert [(await client.get("/")).status_code for _ in range(3)] == [200, 502, 200]
    assert [(trace.kind, trace.duration) for trace in client.traces()] == [(None, 0.25), ("connect", 0.5), (None, 0.25)]


async def test_an_upstream_that_was_never_reached_stays_so(write: Write, autojump_clock: MockClock) -> None:
    path = write(Exchange("u", 2, failure="dns", ended_at=0.5))
    async with gateway(one_call(), cassette(path)) as client:
        for _ in range(2):
            await client.get("/")
            assert (client.trace().kind, client.trace().duration) == ("dns", 0.5)


@pytest.mark.parametrize(("size", "value"), [(1, 0), (3, 0), (4, None), (100, None)])
async def test_without_bodies_json_has_the_same_size(
    size: int, value: object, write: Write, autojump_clock: MockClock
) -> None:
    first, rest = Part(0.5, size), Part(1, 7)
    exchange = Exchange("u", 0, "GET", "/it", 200, 0.5, JSON, (first, rest), ended_at=1)
    async with gateway(one_call(), cassette(write(exchange, header=Header(1)))) as client:
        assert (await client.get("/")).json() == {"it": value}
    async with gateway(PROXY, cassette(write(exchange, header=Header(1)))) as client:
        assert len((await client.get("/it")).content) == size + 7


async def test_a_request_that_is_not_on_the_cassette_ends_the_test(write: Write, autojump_clock: MockClock) -> None:
    path = write(answer(1, b"1", target="/other"))
    with pytest.raises(UnscriptedRequestError, match="no response of the upstream 'u' to GET /it"):
        async with gateway(one_call(), cassette(path)) as client:
            await client.get("/")


async def test_targets_are_compared_with_their_secrets_hidden(write: Write, autojump_clock: MockClock) -> None:
    path = write(answer(1, b"1", target=f"/it?pin={REDACTED}"), header=Header(1, bodies=True, redact=("pin",)))
    async with gateway(PROXY, cassette(path)) as client:
        assert (await client.get("/it?pin=1234")).json() == 1


def test_secret_fields_are_never_on_a_cassette() -> None:
    given = [
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"session=1"),
        (b"Authorization", b"Bearer x"),
        (b"WWW-Authenticate", b"Basic"),
        (b"X-Api-Key", b"key"),
        (b"X-Note", b"token=abc"),
        (b"Connection", b"close"),
        (b"Content-Length", b"7"),
        (b"Content-Encoding", b"gzip"),
    ]
    shown = (("Content-Type", "text/plain"), ("X-Api-Key", REDACTED), ("X-Note", f"token={REDACTED}"))
    assert shown_fields(given, Redactor(), bodies=False) == shown
    assert shown_fields(given, Redactor(), bodies=True) == (*shown, ("Content-Encoding", "gzip"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no cassette"),
        (b'{"a": 1}\n', "is no cassette"),
        (b'{"umbel_cassette": 2}\n', "has version 2; this Umbel reads version 1"),
        (b'{"umbel_cassette": 1}\n{"upstream": 7}\n', ":2: is no recorded exchange"),
        (b'{"umbel_cassette": 1}\n{"upstream": "u", "at": 1, "method": "GET"}\n', "without a response and without a"),
        (b'{"umbel_cassette": 1}\n{"upstream": "u", "at": 1, "failure": "reset"}\n', "failure 'reset' where there is"),
    ],
)
def test_what_is_no_cassette_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CassetteError, match=message):
        cassette(tmp_path / "c")


def test_an_unfinished_last_line_is_left_out(write: Write) -> None:
    path = write(answer(1, b"1"))
    with path.open("ab") as file:
        file.write(b'{"upstream": "v"')
    assert list(cassette(path)) == ["u"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="cannot be read: No such file"):
        cassette(tmp_path / "none")
