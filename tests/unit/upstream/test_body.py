from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.events import NULL
from umbel.kinds import Kind
from umbel.model import FACTS, JSON_MAX, OTHER_MAX, CallFacts, RequestFacts, Trace
from umbel.upstream.body import Body, Decoder
from umbel.upstream.errors import Malformed, TooBig


class Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.given = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.given += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed += 1


class Bottom(httpx.AsyncBaseTransport):
    """Answers with the given headers and pieces."""

    def __init__(self, pieces: Iterable[bytes], status: int = 200, **headers: str) -> None:
        self.stream = Stream(pieces)
        self._status = status
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request: httpx.Request | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.request = request
        return httpx.Response(self._status, headers=self._headers, stream=self.stream)


async def read(bottom: Bottom, *, max_body: int | None = None, method: str = "GET", **extensions) -> httpx.Response:
    request = httpx.Request(method, "http://x/", headers={"accept-encoding": "br"}, extensions=extensions)
    return await Body(bottom, max_body=max_body).handle_async_request(request)


def facts(max_body: int | None) -> CallFacts:
    request = RequestFacts("id", Trace("0" * 32), "GET", "/", "/", 0.0)
    return CallFacts("call", "upstream", request, 1.0, NULL, max_body)


async def test_the_response_is_complete_decoded_and_asked_for_as_gzip() -> None:
    text = b"hello " * 1000
    packed = gzip.compress(text)
    bottom = Bottom([packed], content_encoding="gzip", content_length=str(len(packed)), x_kept="1")
    response = await read(bottom)
    assert (response.content, response.is_closed) == (text, True)
    assert dict(response.headers) == {"x-kept": "1"}
    assert bottom.request is not None
    assert bottom.request.headers.get_list("accept-encoding") == ["gzip"]
    assert bottom.stream.closed == 1


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
async def test_a_plain_body_stays_as_it_is(coding: str) -> None:
    headers = {"content_encoding": coding} if coding else {}
    assert (await read(Bottom([b"a", b"b"], content_length="2", **headers))).content == b"ab"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_gzip_is_decoded_however_it_is_cut(coding: str, size: int) -> None:
    text = bytes(range(256)) * 500
    packed = gzip.compress(text)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert (await read(Bottom(pieces, content_encoding=coding))).content == text


async def test_gzip_of_several_members_is_one_body() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert (await read(Bottom([packed[:10], packed[10:]], content_encoding="gzip"))).content == b"one two"


async def test_an_empty_body_that_claims_to_be_gzip_is_empty() -> None:
    assert (await read(Bottom([], content_encoding="gzip"))).content == b""


BAD = {
    "no gzip": (b"<html>", "http_response_content_coding"),
    "a block of no type": (gzip.compress(b"x")[:10] + b"\x07" * 20, "http_response_content_coding"),
    "wrong checksum": (gzip.compress(b"x" * 99)[:-8] + b"\0" * 8, "http_response_content_coding"),
    "garbage behind": (gzip.compress(b"x") + b"garbage", "http_response_content_coding"),
    "too many members": (gzip.compress(b"") * 100, "http_response_content_coding"),
    "deflate": (zlib.compress(b"x"), "http_response_content_coding"),
    "cut short": (gzip.compress(b"x" * 999)[:-1], "http_response_incomplete"),
    "cut in the header": (gzip.compress(b"x")[:5], "http_response_incomplete"),
}


@pytest.mark.parametrize(("raw", "proxy_error"), BAD.values(), ids=BAD)
async def test_bad_gzip_is_malformed_and_the_stream_is_closed(raw: bytes, proxy_error: str) -> None:
    bottom = Bottom([raw[:3], raw[3:]], content_encoding="gzip")
    with pytest.raises(Malformed) as caught:
        await read(bottom)
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.MALFORMED, proxy_error)
    assert bottom.stream.closed == 1


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "gzip,br", "identity, gzip", "zstd", "x"])
async def test_any_other_coding_is_malformed_before_a_byte_is_read(coding: str) -> None:
    bottom = Bottom([b"x"], content_encoding=coding)
    with pytest.raises(Malformed):
        await read(bottom)
    assert (bottom.stream.given, bottom.stream.closed) == (0, 1)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_without_a_body_its_headers_mean_nothing(method: str, status: int) -> None:
    bottom = Bottom([], status, content_encoding="br", content_length="99999999999")
    assert (await read(bottom, method=method)).content == b""


async def test_a_known_length_over_the_limit_is_too_big_before_a_byte_is_read() -> None:
    bottom = Bottom([b"x" * 11], content_length="11")
    with pytest.raises(TooBig) as caught:
        await read(bottom, max_body=10)
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.TOO_BIG, "http_response_body_size")
    assert (bottom.stream.given, bottom.stream.closed) == (0, 1)


async def test_the_limit_itself_fits_and_one_byte_more_does_not() -> None:
    assert len((await read(Bottom([b"x" * 10]), max_body=10)).content) == 10
    with pytest.raises(TooBig):
        await read(Bottom([b"x" * 10, b"x"]), max_body=10)
    packed = gzip.compress(b"x" * 100_000)
    assert len((await read(Bottom([packed], content_encoding="gzip"), max_body=100_000)).content) == 100_000
    with pytest.raises(TooBig):
        await read(Bottom([packed], content_encoding="gzip"), max_body=99_999)


async def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield b"x" * 100

    bottom = Bottom(endless())
    with pytest.raises(TooBig):
        await read(bottom, max_body=1000)
    assert bottom.stream.given == 1100


async def test_endless_gzip_that_means_nothing_is_too_big() -> None:
    def endless() -> Iterable[bytes]:
        packer = zlib.compressobj(wbits=31)
        yield packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
        while True:
            yield packer.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff" * 200

    with pytest.raises(TooBig):
        await read(Bottom(endless(), content_encoding="gzip"), max_body=1000)


@pytest.mark.parametrize(
    ("content_type", "limit"),
    [
        ("application/json", JSON_MAX),
        ("application/problem+json; charset=utf-8", JSON_MAX),
        ("text/html", OTHER_MAX),
        ("", OTHER_MAX),
    ],
)
async def test_without_a_limit_the_type_gives_one(content_type: str, limit: int) -> None:
    assert (await read(Bottom([b"x" * limit], content_type=content_type))).status_code == 200
    with pytest.raises(TooBig):
        await read(Bottom([b"x" * limit, b"x"], content_type=content_type))


async def test_the_calls_own_limit_goes_before_the_upstreams() -> None:
    assert (await read(Bottom([b"x" * 20]), max_body=10, **{FACTS: facts(20)})).status_code == 200
    with pytest.raises(TooBig):
        await read(Bottom([b"x" * 20]), max_body=100, **{FACTS: facts(19)})
    with pytest.raises(TooBig):
        await read(Bottom([b"x" * 20]), max_body=10, **{FACTS: facts(None)})


def _bomb(size: int) -> list[bytes]:
    packed = gzip.compress(bytes(size))
    return [packed[start : start + 65536] for start in range(0, len(packed), 65536)]


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [(_bomb(200 * 2**20), {"content_encoding": "gzip"}), ([b"x" * 100] * 200_000, {})],
    ids=["gzip bomb", "endless"],
)
async def test_too_big_a_body_takes_less_memory_than_three_times_the_limit(
    pieces: list[bytes], headers: dict[str, str]
) -> None:
    limit = 2 * 2**20
    tracemalloc.start()
    try:
        with pytest.raises(TooBig):
            await read(Bottom(pieces, **headers), max_body=limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limit


async def test_a_body_of_the_limit_in_tiny_pieces_takes_less_memory_than_three_times_the_limit() -> None:
    limit = 200_000
    pieces = (bytes([number % 256, 0]) for number in range(limit // 2))
    tracemalloc.start()
    try:
        await read(Bottom(pieces), max_body=limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limit


@given(st.binary(max_size=5000), st.integers(1, 300))
def test_the_decoder_gives_back_what_was_packed(text: bytes, size: int) -> None:
    packed = gzip.compress(text)
    decoder = Decoder(5000, gzip=True)
    for start in range(0, len(packed), size):
        decoder.feed(packed[start : start + size])
    assert decoder.end() == text


@pytest.mark.parametrize("size", [65535, 65536, 65537, 131072, 262144 + 3])
def test_the_decoder_loses_nothing_at_the_borders_of_its_pieces(size: int) -> None:
    decoder = Decoder(size, gzip=True)
    decoder.feed(gzip.compress(bytes(size)))
    assert decoder.end() == bytes(size)
