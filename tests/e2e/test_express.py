"""The express way is the ordinary way, only cheaper: what comes back, told each way over a kept connection."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.support.bothways import ONE, Case, Step, both_ways
from tests.support.faults import BAD_ANSWERS, CHUNKED, CODED, HEAD
from tests.support.rawserver import response

JSON = b"Content-Type: application/json"
BODY = b'{"of":[1,2,3]}'
ZIPPED = gzip.compress(BODY * 1)
CHUNKS = CHUNKED + b"5\r\n" + BODY[:5] + b"\r\n9;x=y\r\n" + BODY[5:] + b"\r\n0\r\n"

WHOLE: dict[str, bytes] = {
    "json": ONE,
    "head in odd case": b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: 1\r\nX: \xff\r\n\r\n1",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n1",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1",
    "HTTP/1.0 that keeps": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n1",
    "empty": response(b""),
    "chunked": CHUNKS + b"\r\n",
    "chunked with trailers": CHUNKS + b"X-Sum: 7\r\nY: z\r\n\r\n",
    "chunked and nothing": CHUNKED + b"0\r\n\r\n",
    "gzip": response(ZIPPED, JSON, b"Content-Encoding: gzip"),
    "gzip in chunks": HEAD
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ZIPPED)
    + ZIPPED
    + b"\r\n0\r\n\r\n",
    "gzip in two members": response(gzip.compress(BODY[:4]) + gzip.compress(BODY[4:]), b"Content-Encoding: x-gzip"),
    "gzip of nothing at all": response(b"", b"Content-Encoding: gzip"),
    "another coding of nothing": response(b"", b"Content-Encoding: br"),
    "identity": response(BODY, b"Content-Encoding: identity"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "205": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "301": response(b"", b"Location: /else", status=b"301 Moved"),
    "103 before": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ONE,
    "100 twice before": b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + ONE,
    "connection: close": response(b"1", b"Connection: close"),
    "connection: names a field": response(b"1", b"Connection: x-hop", b"X-Hop: 1"),
    "bytes behind it": ONE + b"more",
    "a second response behind it": ONE + ONE,
    "bytes behind the chunks": CHUNKS + b"\r\nmore",
    "404": response(b'{"no":1}', status=b"404 Not Found"),
    "429": response(b"", b"Retry-After: 7", status=b"429 Too Many"),
    "500": response(b"no", status=b"500 Oops"),
    "503": response(b"no", b"Retry-After: 1", status=b"503 Busy"),
    "bad JSON": response(b"{"),
    "deep JSON": response(b"[" * 300 + b"]" * 300),
    "64 KiB and more": response(b'"' + b"x" * 200_000 + b'"'),
    "caching fields": response(b"1", b"Cache-Control: max-age=5", b"Age: 3", b"Set-Cookie: a=b"),
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE.keys())
async def test_a_response_means_the_same_either_way(answer: bytes) -> None:
    seen = await both_ways(Case([answer], times=2))
    assert seen.way is not None
    assert seen.way.in_air >= 1


@pytest.mark.parametrize(
    "answer",
    [WHOLE[name] for name in ("json", "chunked with trailers", "gzip in chunks", "103 before", "bytes behind it")],
    ids=["json", "chunks", "gzip", "1xx", "excess"],
)
async def test_a_response_in_two_pieces_cut_anywhere_means_the_same_either_way(answer: bytes) -> None:
    steps: list[Step] = [[answer[:cut], answer[cut:]] for cut in range(1, len(answer))]
    seen = await both_ways(Case(steps, times=len(steps)))
    assert seen.way is not None
    assert seen.way.in_air > 0


async def test_a_response_byte_by_byte_means_the_same_either_way() -> None:
    for name in ("chunked with trailers", "gzip", "100 twice before"):
        await both_ways(Case([[bytes([byte]) for byte in WHOLE[name]], ONE], times=2))


@pytest.mark.parametrize(
    "call",
    [
        {"ok": [404], "null_on": [204]},
        {"null_on": [404, 500, 503]},
        {"pass_status": [404, 429], "pass_body": True},
        {"pass_status": []},
        {"optional": True},
        {"optional": True, "default": {"d": 1}},
        {"decode": "text"},
        {"decode": "none"},
        {"max_body": "8B"},
    ],
    ids=str,
)
async def test_what_a_call_makes_of_it_is_the_same_either_way(call: dict[str, Any]) -> None:
    for name in ("json", "gzip", "chunked", "204", "404", "429", "503", "bad JSON", "64 KiB and more"):
        await both_ways(Case([WHOLE[name]], calls={"a": call}))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE"])
async def test_other_methods_are_the_same_either_way(method: str) -> None:
    head = response(b"12345", JSON, b"Content-Encoding: gzip")[:-5] if method == "HEAD" else ONE
    seen = await both_ways(Case([head], calls={"a": {"method": method}}, times=2))
    assert (seen.way.in_air if seen.way is not None else 0) == 2


def closing(data: bytes) -> Step:
    async def step(peer: Any) -> bool:
        await peer.send(data)
        return False

    return step


@pytest.mark.parametrize("case", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
@pytest.mark.parametrize("halved", [False, True], ids=["at once", "in two pieces"])
async def test_a_bad_answer_fails_the_same_either_way(case: tuple[bytes, bool, Any, str], halved: bool) -> None:
    data, closes, _, _ = case
    half = len(data) // 2 if halved else 0

    async def step(peer: Any) -> bool:
        from trio.testing import wait_all_tasks_blocked

        for piece in filter(None, (data[:half], data[half:])):
            await peer.send(piece)
            await wait_all_tasks_blocked()
        if not closes:
            await peer.closed()
        return False

    await both_ways(Case([step], upstream={"max_body": "100KB"}))


@pytest.mark.parametrize("case", CODED.values(), ids=CODED.keys())
async def test_a_bad_content_coding_fails_the_same_either_way(case: tuple[bytes, bytes, str]) -> None:
    coding, body, _ = case
    whole = response(body, b"Content-Encoding: " + coding)
    await both_ways(Case([whole]))
    await both_ways(Case([[whole[:-2], whole[-2:]]]))
    await both_ways(Case([[whole[: -len(body)], whole[-len(body) :]]]))


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"\r\n" + BODY,
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + ZIPPED,
        HEAD + b"\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 20\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 2\r\n\r\n" + BODY,
        ONE,
    ],
    ids=["until the end", "gzip", "nothing", "HTTP/1.0", "too short", "too long", "and closes"],
)
async def test_a_response_that_ends_with_its_connection_is_the_same_either_way(data: bytes) -> None:
    await both_ways(Case([closing(data), ONE], times=2))


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
async def test_a_body_over_its_bound_fails_the_same_either_way(answer: Step) -> None:
    await both_ways(Case([answer], upstream={"max_body": "1KB"}, calls={"a": {"decode": "text"}}))


async def test_a_head_over_its_bounds_fails_the_same_either_way() -> None:
    bounds = {"max_head": "200B", "max_fields": 3}
    for fields in ([b"X: y"] * 2, [b"X: y"] * 3, [b"X: " + b"y" * 160], [b"X: " + b"y" * 130], [b"X: " + b"y" * 300]):
        await both_ways(Case([response(b"1", *fields)], upstream=bounds, times=2))
