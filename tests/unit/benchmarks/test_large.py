"""The bodies of the benchmark of large bodies, and its scanner, which must be strict for its time to mean something."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from umbel.composition.decode import decode_strict

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '""', "0", "-", "1.5", "01", "true", "null", " ", "n", "s", "m", "#", '"']
)


@pytest.fixture(scope="module")
def scanner() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("strict_scanner")


@given(parts=st.lists(TOKENS, max_size=12))
@example(parts=["#"])
@example(parts=["1", " ", "2"])
def test_the_scanner_accepts_only_what_decoding_accepts(scanner: Any, parts: list[str]) -> None:
    body = "".join(parts).encode()
    if scanner.accepts(body):
        decode_strict(body)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(alphabet="aß€,:[{"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="ab,"), inner),
        max_leaves=20,
    )
)
def test_the_scanner_accepts_json_without_escapes(scanner: Any, value: object) -> None:
    assert scanner.accepts(json.dumps(value, ensure_ascii=False).encode())


@pytest.mark.parametrize("body", [b'"\xff"', b'"\x1f"', b"[" * 201 + b"]" * 201, b"[" + b"1," * 200_000 + b"1]"])
def test_the_scanner_refuses_what_is_out_of_bounds(scanner: Any, body: bytes) -> None:
    assert not scanner.accepts(body)
