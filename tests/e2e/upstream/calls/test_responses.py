"""Bytes of responses over a kept connection: the value or failure of the call, and the reuse of the connection."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.over_sockets import ONE, Case, Step, observe
from tests.support.gateway.answers.plain_json import plain
from tests.support.upstream.bad_upstreams import BAD_ANSWERS, CHUNKED, CODED, HEAD
from tests.support.upstream.raw_server import Peer, response
from umbel.core.failure_kinds import Kind

JSON = b"Content-Type: application/json"
BODY = b'{"of":[1,2,3]}'
OF = {"of": [1, 2, 3]}
ZIPPED = gzip.compress(BODY)
CHUNKS = CHUNKED + b"5\r\n" + BODY[:5] + b"\r\n9;x=y\r\n" + BODY[5:] + b"\r\n0\r\n"

# Bytes of the response, result of the call, and whether the connection is reused.
WHOLE: dict[str, tuple[bytes, Any, bool]] = {
    "json": (ONE, {"one": 1}, True),
    "head in odd case": (b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: 1\r\nX: \xff\r\n\r\n1", 1, True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n1", 1, True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", 1, False),
    "HTTP/1.0 that keeps": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1", 1, True),
    "empty": (response(b""), None, True),
    "201 and nothing": (response(b"", b"Location: /x/1", status=b"201 Created"), None, True),
    "whitespace": (response(b" \r\n"), None, True),
    "chunked": (CHUNKS + b"\r\n", OF, True),
    "chunked with trailers": (CHUNKS + b"X-Sum: 7\r\nY: z\r\n\r\n", OF, True),
    "chunked and nothing": (CHUNKED + b"0\r\n\r\n", None, True),
    "gzip": (response(ZIPPED, JSON, b"Content-Encoding: gzip"), OF, True),
    "gzip in chunks": (
        HEAD
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ZIPPED)
        + ZIPPED
        + b"\r\n0\r\n\r\n",
        OF,
        True,
    ),
    "gzip in two members": (
        response(gzip.compress(BODY[:4]) + gzip.compress(BODY[4:]), b"Content-Encoding: x-gzip"),
        OF,
        True,
    ),
    "gzip of nothing at all": (response(b"", b"Content-Encoding: gzip"), None, True),
    "another coding of nothing": (response(b"", b"Content-Encoding: br"), None, True),
    "identity": (response(BODY, b"Content-Encoding: identity"), OF, True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", None, True),
    "205": (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", None, True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", Kind.STATUS, True),
    "301": (response(b"", b"Location: /else", status=b"301 Moved"), Kind.STATUS, True),
    "103 before": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ONE, {"one": 1}, True),
    "100 twice before": (b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + ONE, {"one": 1}, True),
    "connection: close": (response(b"1", b"Connection: close"), 1, False),
    "connection: names a field": (response(b"1", b"Connection: x-hop", b"X-Hop: 1"), 1, True),
    "bytes behind it": (ONE + b"more", {"one": 1}, False),
    "a second response behind it": (ONE + ONE, {"one": 1}, False),
    "bytes behind the chunks": (CHUNKS + b"\r\nmore", OF, False),
    "404": (response(b'{"no":1}', status=b"404 Not Found"), Kind.STATUS, True),
    "429": (response(b"", b"Retry-After: 7", status=b"429 Too Many"), Kind.STATUS, True),
    "500": (response(b"no", status=b"500 Oops"), Kind.STATUS, True),
    "503": (response(b"no", b"Retry-After: 1", status=b"503 Busy"), Kind.STATUS, True),
    "bad JSON": (response(b"{"), Kind.BAD_BODY, True),
    "deep JSON": (response(b"[" * 300 + b"]" * 300), Kind.BAD_BODY, True),
    "64 KiB and more": (response(b'"' + b"x" * 200_000 + b'"'), "x" * 200_000, True),
    "caching fields": (response(b"1", b"Cache-Control: max-age=5", b"Age: 3", b"Set-Cookie: a=b"), 1, True),
}


def ends_of(seen: Any) -> list[Any]:
    """The result of call "a" in each run."""
    return [run["a"] for run in seen.ends]


@pytest.mark.parametrize(("answer", "end", "kept"), WHOLE.values(), ids=WHOLE.keys())
async def test_a_response_received_in_one_read_gives_its_value(answer: bytes, end: Any, kept: bool) -> None:
    seen = await observe(Case([answer], times=2))
    assert ends_of(seen) == [end, end]
    assert seen.kept == kept
    # The warm connection, and another one where that was not kept: only then a task is needed.
    assert seen.statistics.pool.opened == seen.tasks == 2 - kept
    assert [attempt.reused for attempt in seen.full_attempts] == [True, kept]


@pytest.mark.parametrize("name", ["json", "chunked with trailers", "gzip in chunks", "103 before", "bytes behind it"])
async def test_a_response_in_two_pieces_gives_the_same_value(name: str) -> None:
    answer, end, _ = WHOLE[name]
    steps: list[Step] = [[answer[:cut], answer[cut:]] for cut in range(1, len(answer))]
    assert ends_of(await observe(Case(steps, times=len(steps)))) == [end] * len(steps)


@pytest.mark.parametrize("name", ["chunked with trailers", "gzip", "100 twice before"])
async def test_a_response_received_byte_by_byte_gives_the_same_value(name: str) -> None:
    answer, end, _ = WHOLE[name]
    seen = await observe(Case([[bytes([byte]) for byte in answer], ONE], times=2))
    assert ends_of(seen) == [end, {"one": 1}]
    assert (seen.tasks, seen.kept) == (1, 1)


NAMES = ("json", "gzip", "chunked", "204", "404", "429", "503", "bad JSON", "64 KiB and more")
BAD, REFUSED = (Kind.BAD_BODY, 502), (Kind.STATUS, 502)
LONG = "x" * 200_000
# Result of each response: a value, or the kind of the failure and the status of the answer.
ANSWER = ({"one": 1}, OF, OF, None, (Kind.STATUS, 404), (Kind.STATUS, 429), REFUSED, BAD, LONG)
TEXT = ('{"one":1}', BODY.decode(), BODY.decode(), None, *ANSWER[4:7], "{", f'"{LONG}"')
TOO_BIG = (Kind.TOO_BIG, 502)


@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ({"ok": [404], "null_on": [204]}, (*[REFUSED] * 3, None, {"no": 1}, *ANSWER[5:7], REFUSED, REFUSED)),
        ({"null_on": [404, 500, 503]}, (*ANSWER[:4], None, ANSWER[5], None, *ANSWER[7:])),
        ({"pass_status": [404, 429], "pass_body": True}, ANSWER),
        ({"pass_status": []}, (*ANSWER[:4], *[REFUSED] * 3, *ANSWER[7:])),
        ({"optional": True}, ANSWER),
        ({"optional": True, "default": {"d": 1}}, ANSWER),
        ({"decode": "text"}, TEXT),
        ({"decode": "none"}, (*[None] * 4, *ANSWER[4:7], None, None)),
        ({"max_body": "8B"}, (*[TOO_BIG] * 3, None, *ANSWER[4:8], TOO_BIG)),
    ],
    ids=[
        *("ok", "null_on", "pass_body", "pass no status", "optional", "default", "text", "decode nothing", "max_body"),
    ],
)
async def test_each_response_gives_its_value_or_failure(call: dict[str, Any], ends: tuple[Any, ...]) -> None:
    seen = await observe(Case([WHOLE[name][0] for name in NAMES], calls={"a": call}, times=len(NAMES)))
    outcomes = [result.outcomes[0] for result in seen.results if result is not None]
    failures = [outcome.failure for outcome in outcomes]
    got = [
        plain(outcome.value) if failure is None else (failure.kind, failure.status)
        for outcome, failure in zip(outcomes, failures, strict=True)
    ]
    assert dict(zip(NAMES, got, strict=True)) == dict(zip(NAMES, ends, strict=True))
    for outcome, failure in zip(outcomes, failures, strict=True):
        if failure is not None:
            assert outcome.value == call.get("default")
            assert (failure.body is not None) == ("pass_body" in call and failure.status in (404, 429))
            assert failure.fields == ((("retry-after", "7"),) if failure.status == 429 else ())


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE"])
async def test_a_response_to_each_method_gives_its_value(method: str) -> None:
    head = response(b"12345", JSON, b"Content-Encoding: gzip")[:-5] if method == "HEAD" else ONE
    seen = await observe(Case([head], calls={"a": {"method": method}}, times=2))
    assert ends_of(seen) == [None if method == "HEAD" else {"one": 1}] * 2
    assert (seen.tasks, seen.kept) == (1, 1)


def sending(data: bytes, halved: bool, closes: bool) -> Callable[[Peer], Any]:
    half = len(data) // 2 if halved else 0

    async def step(peer: Peer) -> bool:
        if half:
            await peer.send(data[:half])
            await wait_all_tasks_blocked()
        await peer.send(data[half:])
        if not closes:
            await peer.closed()
        return False

    return step


@pytest.mark.parametrize(("data", "closes", "kind", "proxy_error"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
@pytest.mark.parametrize("halved", [False, True], ids=["at once", "in two pieces"])
async def test_a_malformed_response_fails_its_call(
    data: bytes, closes: bool, kind: Kind, proxy_error: str, halved: bool
) -> None:
    seen = await observe(Case([sending(data, halved, closes)], upstream={"max_body": "100KB"}))
    assert ends_of(seen) == [kind]
    assert seen.kept == 0
    (result,) = seen.results
    assert result is not None
    assert result.failure is not None
    assert result.failure.proxy_error == proxy_error


@pytest.mark.parametrize(("coding", "body", "proxy_error"), CODED.values(), ids=CODED.keys())
async def test_an_invalid_content_coding_fails_its_call(coding: bytes, body: bytes, proxy_error: str) -> None:
    whole = response(body, b"Content-Encoding: " + coding)
    steps: list[Step] = [whole, [whole[:-2], whole[-2:]], [whole[: -len(body)], whole[-len(body) :]]]
    for step in steps:
        seen = await observe(Case([step]))
        (result,) = seen.results
        assert result is not None
        assert result.failure is not None
        assert (result.failure.kind, result.failure.proxy_error) == (Kind.MALFORMED, proxy_error)
        # The connection of a complete response is reused, whatever its content.
        assert seen.kept or step is not whole


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (HEAD + b"\r\n" + BODY, OF),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + ZIPPED, OF),
        (HEAD + b"\r\n", None),
        (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, OF),
        (HEAD + b"Content-Length: 20\r\n\r\n" + BODY, Kind.MALFORMED),
        (HEAD + b"Content-Length: 2\r\n\r\n" + BODY, Kind.BAD_BODY),
        (ONE, {"one": 1}),
    ],
    ids=["until the end", "gzip", "nothing", "HTTP/1.0", "too short", "too long", "and closes"],
)
async def test_a_response_without_a_length_ends_with_its_connection(data: bytes, end: Any) -> None:
    seen = await observe(Case([sending(data, halved=False, closes=True), ONE], times=2))
    assert ends_of(seen) == [end, {"one": 1}]
    assert (seen.statistics.pool.opened, seen.statistics.pool.replaced, seen.kept) == (2, 0, 1)


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="needs data and FIN in one segment")
@pytest.mark.parametrize("answer", [ONE, CHUNKS + b"\r\n"], ids=["plain", "chunked"])
async def test_a_connection_whose_end_comes_with_the_response_is_not_kept(answer: bytes) -> None:
    async def corked(peer: Peer) -> bool:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        await peer.send(answer)
        return False

    seen = await observe(Case([corked]))
    assert seen.statistics.pool.idle == 0


BOMB = gzip.compress(b"x" * 1_000_000)


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x" * 1001),
        [response(b"x" * 1001)[:60], b"x" * 941],
        CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        [CHUNKED + b"3e9\r\n", b"x" * 600, b"x" * 401 + b"\r\n0\r\n\r\n"],
        [CHUNKED + b"3e9\r\n", b"x" * 600, b"x" * 401, b"\r\n0\r\n\r\n"],
        response(BOMB, b"Content-Encoding: gzip"),
        [response(BOMB, b"Content-Encoding: gzip")[:100], response(BOMB, b"Content-Encoding: gzip")[100:]],
        response(b"x" * 70_000, b"Content-Encoding: gzip"),
    ],
    ids=["length", "length in pieces", "chunks", "chunks in pieces", "late", "bomb", "bomb in pieces", "coded length"],
)
async def test_a_body_over_its_limit_fails_its_call(answer: Step) -> None:
    seen = await observe(Case([answer], upstream={"max_body": "1KB"}, calls={"a": {"decode": "text"}}))
    assert ends_of(seen) == [Kind.TOO_BIG]


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ([b"X: y"] * 2, True),
        ([b"X: y"] * 3, False),
        ([b"X: " + b"y" * 130], True),
        ([b"X: " + b"y" * 160], False),
        ([b"X: " + b"y" * 300], False),
    ],
    ids=["3 fields", "4 fields", "180 bytes", "210 bytes", "350 bytes"],
)
async def test_a_head_over_its_limits_fails_its_call(fields: list[bytes], fits: bool) -> None:
    seen = await observe(Case([response(b"1", *fields)], upstream={"max_head": "200B", "max_fields": 3}, times=2))
    assert ends_of(seen) == [1 if fits else Kind.TOO_BIG] * 2
