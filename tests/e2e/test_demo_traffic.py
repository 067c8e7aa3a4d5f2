"""``umbel demo --traffic`` over sockets: the records have answers of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from umbel.demo import traffic
from umbel.demo.session import RunningDemo, run_demo

KINDS = {"complete", "partial", "left", "no item", "bad request"}
"""What the traffic of a few seconds must contain; hedges and failed routes are rarer, and their times are random."""


async def test_the_traffic_has_answers_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "REQUESTS_PER_S", 60.0)
    seen: set[str] = set()

    async with trio.open_nursery() as nursery:

        async def watch(running: RunningDemo) -> None:
            nursery.start_soon(read, running.logs / "access.jsonl")

        async def read(file: Path) -> None:
            while KINDS - seen:
                await trio.sleep(0.1)  # The records have no event for their being written.
                seen.update(_kind(json.loads(line)) for line in (await trio.Path(file).read_text()).splitlines())
            nursery.cancel_scope.cancel(reason="everything was seen")

        with trio.fail_after(20):
            await run_demo(watch, traffic_seed=7, logs=tmp_path / "logs")

    assert seen >= KINDS


def _kind(record: dict[str, Any]) -> str:
    status = record.get("http.response.status_code")
    names = {400: "bad request", 404: "no item", 499: "left", 200: "complete" if record.get("completed") else "partial"}
    return names.get(status, f"other: {status}")
