"""Decoding of JSON piece by piece: the same values and errors as strict decoding."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.composition import decode_large
from umbel.composition.decode import MAX_VALUES, BadBodyError, decode_json
from umbel.composition.decode_large import decode_in_thread, decode_pieces, holds_many_values, values_allowed

LARGE = 10**8
ODD = st.sampled_from(['"', "\\", "],{", ""])
VALUES = st.recursive(
    st.none() | st.integers(-(2**40), 2**40) | st.text(max_size=6) | ODD,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=40,
)


@contextmanager
def pieces_of(size: int) -> Iterator[None]:
    before = decode_large._PIECE
    decode_large._PIECE = size
    try:
        yield
    finally:
        decode_large._PIECE = before


def judged(decode: Any, body: bytes) -> Any:
    try:
        return decode(body)
    except BadBodyError:
        return BadBodyError


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_pieces_decode_to_the_same_value(value: Any, indent: int | None) -> None:
    body = json.dumps(value, indent=indent).encode()
    for size in (1, 3, 20):
        with pieces_of(size):
            assert decode_pieces(body, LARGE) == value


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*'[]{},:"\\ 1', "null", '"a":', '"a"', "[1,2]", '{"b":3}']), max_size=14))
def test_piecewise_decoding_refuses_what_strict_decoding_refuses(parts: list[str]) -> None:
    body = "".join(parts).encode()
    expected = judged(decode_json, body)
    for size in (1, 4, 100):
        with pieces_of(size):
            assert judged(lambda text: decode_pieces(text, LARGE), body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"b":[1,2],"a":[3,4],"b":5,"":{"":6}}',
        b'[{"k":[1,2]},[],{},[[1,2],[]],"a\\\\",3]',
        b" [ 1 , [ 2 , 3 ] ] ",
        b"[" * 40 + b"1" + b",[]]" * 40,
    ],
)
def test_the_last_value_of_a_key_counts_and_whitespace_is_ignored(body: bytes) -> None:
    for size in range(1, len(body) + 1):
        with pieces_of(size):
            assert decode_pieces(body, LARGE) == json.loads(body)


def test_large_bodies_have_the_bounds_of_small_ones() -> None:
    assert values_allowed(10**6) == MAX_VALUES
    assert values_allowed(20 * 10**6) == 4_000_000
    with pytest.raises(BadBodyError, match="200 deep"):
        decode_pieces(b"[1," * 201 + b"1" + b"]" * 201, LARGE)
    with pytest.raises(BadBodyError, match="a larger max_body"):
        decode_pieces(b"[" + b"1," * 300_000 + b"1]", 10**6)
    assert not holds_many_values(b"[" + b"1," * 300_000 + b"1]", 10**6)
    text = b'["' + b"," * 300_000 + b'"]'
    assert decode_pieces(text, 10**6) == json.loads(text)


async def test_the_event_loop_runs_while_many_values_are_decoded() -> None:
    body = b'{"items":[' + b'{"id":1,"n":[2,3]},' * 200_000 + b"4]}"
    assert holds_many_values(body, LARGE)
    longest, beats = 0.0, 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def beat() -> None:
                nonlocal longest, beats
                while True:
                    began = time.perf_counter()
                    await trio.sleep(0.001)
                    longest, beats = max(longest, time.perf_counter() - began), beats + 1

            nursery.start_soon(beat)
            gc.disable()  # A garbage collection would block the event loop too.
            try:
                value = await decode_in_thread(body, LARGE)
            finally:
                gc.enable()
            scope.cancel()
    assert len(value["items"]) == 200_001  # type: ignore[index,call-overload,arg-type]
    assert beats > 5
    # The aim is 20 ms. This detects a decoder that blocks the event loop for the whole body.
    assert longest < 0.3


async def test_an_abandoned_thread_ends_at_its_next_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    began, goes_on, pieces, usual = threading.Event(), threading.Event(), [], decode_large._blank_groups

    def blocks(signs: bytes) -> bytes:
        pieces.append(signs)
        began.set()
        goes_on.wait(10)
        return usual(signs)

    monkeypatch.setattr(decode_large, "_blank_groups", blocks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(decode_in_thread, b"[" + b"1," * 250_000 + b"1]", LARGE)
        await trio.to_thread.run_sync(began.wait)
        nursery.cancel_scope.cancel(reason="nobody waits for the body")
    goes_on.set()
    assert await decode_in_thread(b"[2]", LARGE) == [2], "it waits for the abandoned thread"
    assert len(pieces) == 2


async def test_no_reference_cycle_keeps_a_refused_body_in_memory() -> None:
    body = b"[" + b"1," * 250_000 + b"1]"
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        with pytest.raises(BadBodyError) as caught:
            await decode_in_thread(body, MAX_VALUES * 5)
        del caught
        await trio.lowlevel.checkpoint()
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
