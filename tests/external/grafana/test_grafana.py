"""The dashboard and Grafana's own models: each key of the file is one that Grafana knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.external import ENVIRONMENTS

from tests.support.observe.queries import DASHBOARD, DOCS
from tests.support.process.processes import ended


async def test_grafanas_models_keep_every_key_of_the_dashboard(tmp_path: Path) -> None:
    python = str(ENVIRONMENTS / "grafana" / "bin" / "python")
    script = str(Path(__file__).with_name("round_trip.py"))

    status, output = await ended(python, script, str(DOCS / "grafana" / "umbel.json"), cwd=tmp_path)

    assert status == 0, output
    assert list(_lost(DASHBOARD, json.loads(output))) == []


def _lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of the values that the models do not have, or have changed; they add defaults."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from _lost(value, theirs[key], f"{path}/{key}") if key in theirs else [f"{path}/{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(one, other, f"{path}/{number}")
    elif ours != theirs:
        yield path
