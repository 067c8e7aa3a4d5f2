"""Response bodies: size limit and content coding."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.upstream.memory_calls import Asked, answer, coalescing
from umbel.core.failure_kinds import Kind
from umbel.core.model import JSON_MAX, OTHER_MAX
from umbel.http1.response_head import head_of
from umbel.upstream.calls.response_body import Decoder, check_size, fields_and_decoder, limit_of
from umbel.upstream.errors import Malformed, TooBig


class Pieces:
    """A body's pieces; ``given`` counts the bytes that were taken."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.given += len(piece)
            yield piece


def read(
    pieces: Iterable[bytes], limit: int | None = None, *, method: str = "GET", status: int = 200, **headers: str
) -> tuple[dict[bytes, bytes], bytes]:
    """Fields and decoded body of a response with these pieces."""
    lines = "".join(f"\r\n{name.replace('_', '-')}: {value}" for name, value in headers.items())
    kept, decoder = fields_and_decoder(method, head_of(f"HTTP/1.1 {status} X{lines}".encode()), limit)
    for piece in pieces:
        decoder.feed(piece)
    return {name: value for _, name, value in kept}, decoder.end()


def body_of(*args: object, **options: object) -> bytes:
    """The body of ``read``."""
    return read(*args, **options)[1]  # type: ignore[arg-type]


def test_a_coded_body_is_decoded_and_its_fields_describe_the_decoded_body() -> None:
    text = b"hello " * 1000
    packed = gzip.compress(text)
    kept, body = read([packed], content_encoding="gzip", content_length=str(len(packed)), x_kept="1")
    assert (kept, body) == ({b"x-kept": b"1"}, text)


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_a_body_without_a_coding_is_not_changed(coding: str) -> None:
    headers = {"content_encoding": coding} if coding else {}
    assert body_of([b"a", b"b"], content_length="2", **headers) == b"ab"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_gzip_is_decoded_from_pieces_of_any_size(coding: str, size: int) -> None:
    text = bytes(range(256)) * 500
    packed = gzip.compress(text)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert body_of(pieces, content_encoding=coding) == text


def test_gzip_of_several_members_is_one_body() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert body_of([packed[:10], packed[10:]], content_encoding="gzip") == b"one two"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize("packed", [zlib.compress(b"one " * 99), raw_deflate(b"one " * 99)], ids=["zlib", "raw"])
@pytest.mark.parametrize("padding", [b"", bytes(600)], ids=["alone", "padded"])
def test_deflate_is_decoded_with_and_without_the_zlib_header(packed: bytes, padding: bytes) -> None:
    body = packed + padding
    for pieces in ([body], [body[:1], body[1:]], [bytes([byte]) for byte in body]):
        assert body_of(pieces, content_encoding="deflate") == b"one " * 99


@pytest.mark.parametrize("behind", [b"x", b"\0x", zlib.compress(b"x")])
def test_bytes_after_a_deflate_body_are_malformed(behind: bytes) -> None:
    with pytest.raises(Malformed):
        read([zlib.compress(b"one") + behind], content_encoding="deflate")


@pytest.mark.parametrize("packed", [zlib.compress(b"one")[:-1], zlib.compress(b"one")[:1], b"\xff\xff"])
def test_an_incomplete_or_invalid_deflate_body_is_malformed(packed: bytes) -> None:
    with pytest.raises(Malformed):
        read([packed], content_encoding="deflate")


def test_zero_bytes_after_a_gzip_body_or_between_members_are_padding() -> None:
    packed = gzip.compress(b"one ") + bytes(512) + gzip.compress(b"two") + bytes(512)
    for size in (1, 7, 600, len(packed)):
        pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
        assert body_of(pieces, content_encoding="gzip") == b"one two"


def test_endless_zero_bytes_after_a_gzip_body_are_too_big() -> None:
    with pytest.raises(TooBig):
        read([gzip.compress(b"one"), *[bytes(1000)] * 1000], 1000, content_encoding="gzip")


@pytest.mark.parametrize("coding", ["UTF-8", "none", "binary", "8bit", "", "identity", "x", "utf-8, identity", '""'])
def test_a_content_encoding_that_names_no_coding_is_ignored(coding: str) -> None:
    assert body_of([b"one"], content_encoding=coding) == b"one"


@pytest.mark.parametrize(
    "coding", ["GZIP", "x-gzip", "gzip, identity", "identity, gzip", "gzip,", "utf-8,gzip", '"gzip"']
)
def test_gzip_is_found_among_names_that_are_no_coding(coding: str) -> None:
    assert body_of([gzip.compress(b"one")], content_encoding=coding) == b"one"


def test_an_empty_body_that_claims_to_be_gzip_is_empty() -> None:
    assert body_of([], content_encoding="gzip") == b""


BAD = {
    "no gzip": (b"<html>", "http_response_content_coding"),
    "a block of no type": (gzip.compress(b"x")[:10] + b"\x07" * 20, "http_response_content_coding"),
    "wrong checksum": (gzip.compress(b"x" * 99)[:-8] + b"\0" * 8, "http_response_content_coding"),
    "garbage behind": (gzip.compress(b"x") + b"garbage", "http_response_content_coding"),
    "too many members": (gzip.compress(b"") * 100, "http_response_content_coding"),
    "deflate": (zlib.compress(b"x"), "http_response_content_coding"),
    "zero bytes before garbage": (gzip.compress(b"x") + bytes(9) + b"garbage", "http_response_content_coding"),
    "cut short": (gzip.compress(b"x" * 999)[:-1], "http_response_incomplete"),
    "cut in the header": (gzip.compress(b"x")[:5], "http_response_incomplete"),
}


@pytest.mark.parametrize(("raw", "proxy_error"), BAD.values(), ids=BAD)
def test_invalid_gzip_is_malformed(raw: bytes, proxy_error: str) -> None:
    with pytest.raises(Malformed) as caught:
        read([raw[:3], raw[3:]], content_encoding="gzip")
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.MALFORMED, proxy_error)


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "gzip,br", "deflate, gzip", "zstd", "x-bzip2"])
def test_any_other_coding_is_malformed_before_a_byte_is_read(coding: str) -> None:
    pieces = Pieces([b"x"])
    with pytest.raises(Malformed):
        read(pieces, content_encoding=coding)
    assert pieces.given == 0


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_fields_about_the_body_are_ignored_without_a_body(method: str, status: int) -> None:
    assert body_of([], method=method, status=status, content_encoding="br", content_length="99999999999") == b""


def test_a_content_length_over_the_limit_is_too_big_before_a_byte_is_read() -> None:
    pieces = Pieces([b"x" * 11])
    with pytest.raises(TooBig) as caught:
        read(pieces, 10, content_length="11")
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.TOO_BIG, "http_response_body_size")
    assert pieces.given == 0


def test_a_body_of_the_limit_is_accepted_and_one_byte_more_is_too_big() -> None:
    assert len(body_of([b"x" * 10], 10)) == 10
    check_size(10, 10)
    with pytest.raises(TooBig):
        read([b"x" * 10, b"x"], 10)
    with pytest.raises(TooBig):
        check_size(11, 10)
    packed = gzip.compress(b"x" * 100_000)
    assert len(body_of([packed], 100_000, content_encoding="gzip")) == 100_000
    with pytest.raises(TooBig):
        read([packed], 99_999, content_encoding="gzip")


def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield b"x" * 100

    pieces = Pieces(endless())
    with pytest.raises(TooBig):
        read(pieces, 1000)
    assert pieces.given == 1100


def test_endless_gzip_that_decodes_to_nothing_is_too_big() -> None:
    def endless() -> Iterable[bytes]:
        packer = zlib.compressobj(wbits=31)
        yield packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
        while True:
            yield packer.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff" * 200

    with pytest.raises(TooBig):
        read(endless(), 1000, content_encoding="gzip")


@pytest.mark.parametrize(
    ("content_type", "limit"),
    [
        ("application/json", JSON_MAX),
        ("application/problem+json; charset=utf-8", JSON_MAX),
        ("text/html", OTHER_MAX),
        ("", OTHER_MAX),
    ],
)
def test_without_a_limit_the_media_type_decides(content_type: str, limit: int) -> None:
    assert limit_of([(b"Content-Type", b"content-type", content_type.encode())]) == limit
    assert len(body_of([b"x" * limit], content_type=content_type)) == limit
    with pytest.raises(TooBig):
        read([b"x" * limit, b"x"], content_type=content_type)


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
async def test_a_calls_own_body_limit_replaces_the_upstreams(whole: bool) -> None:
    async def act(asked: Asked) -> bytes:
        assert [value for name, value in asked.fields if name == b"accept-encoding"] == [b"gzip"]
        if whole:
            return answer(content=b"x" * 20)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"

    for upstreams, own, fits in [(10, 20, True), (100, 19, False), (10, None, False), (20, None, True)]:
        async with coalescing(act, coalesce=False, max_body=upstreams) as upstream:
            made = upstream.start(max_body=own, headers={"Accept-Encoding": "br"})
            with trio.fail_after(5):
                end = await made.end()
            assert (end.content, end.error) == (b"x" * 20, None) if fits else isinstance(end.error, TooBig)


def _bomb(size: int) -> list[bytes]:
    packed = gzip.compress(bytes(size))
    return [packed[start : start + 65536] for start in range(0, len(packed), 65536)]


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [(_bomb(200 * 2**20), {"content_encoding": "gzip"}), ([b"x" * 100] * 200_000, {})],
    ids=["gzip bomb", "endless"],
)
def test_a_body_over_the_limit_takes_less_memory_than_three_times_the_limit(
    pieces: list[bytes], headers: dict[str, str]
) -> None:
    limit = 2 * 2**20
    tracemalloc.start()
    try:
        with pytest.raises(TooBig):
            read(pieces, limit, **headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limit


def test_a_body_in_tiny_pieces_takes_less_memory_than_three_times_the_limit() -> None:
    limit = 200_000
    pieces = (bytes([number % 256, 0]) for number in range(limit // 2))
    tracemalloc.start()
    try:
        assert len(body_of(pieces, limit)) == limit
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * limit


@given(st.binary(max_size=5000), st.integers(1, 300))
def test_the_decoder_returns_the_compressed_content(text: bytes, size: int) -> None:
    packed = gzip.compress(text)
    decoder = Decoder(5000, "gzip")
    for start in range(0, len(packed), size):
        decoder.feed(packed[start : start + size])
    assert decoder.end() == text


@pytest.mark.parametrize("size", [65535, 65536, 65537, 131072, 262144 + 3])
def test_the_decoder_loses_nothing_at_the_borders_of_pieces(size: int) -> None:
    decoder = Decoder(size, "gzip")
    decoder.feed(gzip.compress(bytes(size)))
    assert decoder.end() == bytes(size)
