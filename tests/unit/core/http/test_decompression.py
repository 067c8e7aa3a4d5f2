"""Decompression of bodies piece by piece: codings, bounds of the output, and broken bodies."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.core.http.compressors import library
from umbel.core.http.decompression import PIECE, BadCodingError, DecodedCoding, make_decompressor


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def zstd(data: bytes) -> bytes:
    return bytes(library("zstd").compress(data))


ENCODERS: dict[str, tuple[DecodedCoding, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's header": ("deflate", _raw_deflate),
    "zstd": ("zstd", zstd),
    "br": ("br", lambda data: bytes(library("br").compress(data, quality=4))),
}


def decode(coding: DecodedCoding, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    decompressor = make_decompressor(coding)
    body = b"".join(piece for data in pieces for piece in decompressor.feed(data))
    return body, decompressor.is_complete


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


NOISE = random.Random(1).randbytes(200_000)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("body", [b"", b"x", b"umbel " * 1000, bytes(500_000), NOISE], ids=lambda body: f"{len(body)}")
def test_a_body_is_decoded_whatever_its_pieces(name: str, body: bytes) -> None:
    coding, encode = ENCODERS[name]
    coded = encode(body)
    for size in (len(coded), 1009, *([1] if len(coded) < 5000 else [])):
        assert decode(coding, in_pieces(coded, size)) == (body, True)


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=300), st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_a_truncated_body_is_never_complete(name: str, body: bytes, size: int, data: st.DataObject) -> None:
    coding, encode = ENCODERS[name]
    coded = encode(body)
    kept = data.draw(st.integers(0, len(coded) - 1))
    decoded, complete = decode(coding, in_pieces(coded[:kept], size))
    # The last bytes of gzip and zlib are a checksum, so the content may be there.
    assert body.startswith(decoded)
    assert not complete


@pytest.mark.parametrize("name", ENCODERS)
def test_the_output_of_a_bomb_comes_in_small_pieces_and_takes_little_memory(name: str) -> None:
    coding, encode = ENCODERS[name]
    bomb = encode(bytes(50_000_000))
    decompressor = make_decompressor(coding)
    tracemalloc.start()
    try:
        sizes = []
        for piece in decompressor.feed(bomb):
            sizes.append(len(piece))
            if sum(sizes) > 10_000_000:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(sizes) <= PIECE + 34_000
    assert peak < 2_000_000


@pytest.mark.parametrize("name", ENCODERS)
def test_broken_bodies_and_bytes_behind_a_body_are_refused(name: str) -> None:
    coding, encode = ENCODERS[name]
    for data in (b"\xff\xff\xff\xff nonsense", encode(b"umbel") + b"more"):
        with pytest.raises(BadCodingError):
            decode(coding, [data])
        with pytest.raises(BadCodingError):
            decode(coding, in_pieces(data, 1))


def test_gzip_and_zstd_may_have_64_parts() -> None:
    for coding, encode in (ENCODERS["gzip"], ENCODERS["zstd"]):
        part = encode(b"a")
        for size in (7, 10**6):
            assert decode(coding, in_pieces(part * 64, size)) == (b"a" * 64, True)
            with pytest.raises(BadCodingError, match="more than 64"):
                decode(coding, in_pieces(part * 65, size))


def test_a_zstd_window_above_8_mib_is_refused() -> None:
    module = library("zstd")
    packer = module.ZstdCompressor(options={module.CompressionParameter.window_log: 24})
    coded = packer.compress(b"a" * 10, packer.FLUSH_BLOCK) + packer.compress(b"b" * 10, packer.FLUSH_FRAME)
    with pytest.raises(BadCodingError):
        decode("zstd", [coded])
