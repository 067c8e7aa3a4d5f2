"""The bodies of the benchmark of large bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umbel.composition.json_check import is_json


@pytest.mark.parametrize("size", [10 * 1024, 100 * 1024])
def test_a_body_has_its_size_and_is_not_decoded(size: int, script: Any) -> None:
    body = script("large").ordinary_body(size)
    assert size <= len(body) < size + 300
    assert is_json(body)
    assert len(json.loads(body)["items"]) > 40
