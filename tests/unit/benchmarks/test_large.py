"""The bodies of the benchmark of large bodies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umbel.composition.json_check import is_json

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize("size", [10 * 1024, 100 * 1024])
def test_a_body_has_its_size_and_is_not_decoded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from large import ordinary_body  # type: ignore[import-not-found]  # a script beside this project's packages

    body = ordinary_body(size)
    assert size <= len(body) < size + 300
    assert is_json(body)
    assert len(json.loads(body)["items"]) > 40
