"""The access log: probes that are left out, and files in the combined format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.logs.event_factories import request_ended, request_facts
from tests.support.logs.sinks import MemoryLog
from umbel.config.schema.sections import Logs
from umbel.core.failure_kinds import Kind
from umbel.core.http.client_head import ClientHead
from umbel.logs import open_recorder
from umbel.logs.files.ring import Ring
from umbel.logs.files.rotation import began_at
from umbel.logs.recorder import path_of
from umbel.logs.records.combined import record_of

HEAD = ClientHead("1.1", "", "test")


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [
        ({}, False),
        ({"method": "HEAD"}, False),
        ({"path": "/health"}, False),
        ({"path": "/other"}, True),
        ({"method": "POST"}, True),
        ({"status": 503, "kind": None}, True),
        ({"status": 405}, True),
        ({"kind": Kind.CLIENT_GONE}, True),
        ({"completed": False}, True),
    ],
)
@pytest.mark.parametrize("combined", [False, True])
async def test_only_a_probe_that_succeeds_is_left_out(
    combined: bool, changes: dict[str, Any], recorded: bool, autojump_clock: MockClock
) -> None:
    log = MemoryLog()
    facts = {"path": "/livez", **{name: changes[name] for name in ("method", "path") if name in changes}}
    others = {name: value for name, value in changes.items() if name not in facts}
    async with log.open(probes=("/livez", "/readyz", "/health"), combined=combined) as recorder:
        recorder.record(request_ended(request=request_facts(**facts), **others))

    assert bytes(log.access.data).count(b"\n") == recorded


async def test_the_key_probes_records_probes(tmp_path: Path) -> None:
    for probes in (False, True):
        logs = Logs.model_validate({"dir": str(tmp_path), "access": {"probes": probes}})
        async with open_recorder(logs, ("/livez",)) as recorder:
            recorder.record(request_ended(request=request_facts(path="/livez")))

    assert len((await trio.Path(tmp_path / "access.jsonl").read_text()).splitlines()) == 1


async def test_losses_of_a_combined_log_are_recorded_in_app(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with log.open(max_records=10, combined=True) as recorder:
        for _ in range(15):
            recorder.record(request_ended(head=HEAD))
        await trio.sleep(1)
        recorder.record(request_ended(500, head=HEAD))

    lines = bytes(log.access.data).splitlines()
    assert len(lines) == 10
    assert all(record_of(line) for line in lines)
    dropped, closed = log.app.records
    assert (dropped["event"], dropped["log"], dropped["count"]) == ("log.dropped", "access", 6)
    assert closed["streams"]["access"] == {"written": 10, "dropped": 6}


def combined_logs(directory: Path, **keys: Any) -> Logs:
    return Logs.model_validate({"dir": str(directory), "access": {"format": "combined"}, **keys})


async def test_a_combined_log_has_lines_of_requests_only(tmp_path: Path) -> None:
    async with open_recorder(combined_logs(tmp_path, rotate_size="200B", compress="none")) as recorder:
        for _ in range(6):
            recorder.record(request_ended(head=HEAD))
            await recorder.flush()

    files = sorted(await trio.to_thread.run_sync(lambda: list(tmp_path.glob("access.log*"))))
    assert len(files) == 3
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    assert len(lines) == 6
    assert all(record_of(line) for line in lines)
    assert [json.loads(line)["event"] for line in (tmp_path / "app.jsonl").read_bytes().splitlines()] == ["log.closed"]
    assert not (tmp_path / "access.jsonl").exists()


def test_the_begin_of_a_combined_file_is_the_time_of_its_first_line() -> None:
    assert began_at(b'::1 - - [01/Jan/1970:00:01:05 +0000] "-" 400 0 "-" "-"') == 65.0


async def test_equal_lines_of_a_killed_process_are_all_recovered(tmp_path: Path) -> None:
    logs = combined_logs(tmp_path, ring=True)
    path = path_of(logs, "access")
    assert path is not None
    line = b'::1 - - [30/Nov/2026:10:14:00 +0000] "GET / HTTP/1.1" 200 0 "-" "-"\n'
    path.write_bytes(line)  # Of another worker.
    ring = Ring(path, 10_000)
    for _ in range(3):
        ring.append(line)
    content = ring.path.read_bytes()
    ring.close()
    ring.path.write_bytes(content)  # As if the process had been killed.

    async with open_recorder(logs):
        pass

    assert path.read_bytes() == line * 4
    recovered, _ = [json.loads(line) for line in (tmp_path / "app.jsonl").read_bytes().splitlines()]
    assert (recovered["event"], recovered["log"], recovered["count"]) == ("log.recovered", "access", 3)
