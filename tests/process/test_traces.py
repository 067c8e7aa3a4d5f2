"""Traces and kept requests of real processes: a master with workers, and a process alone."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway.configs import write
from tests.support.observe.otlp_receiver import Receiver, attributes, otlp_receiver
from tests.support.process.admin import ask_admin
from tests.support.process.processes import PYTHON, ended, started
from tests.support.server.serving import fetch

UMBEL = (PYTHON, "-m", "umbel")
TEXT = '[traces]\notlp = "{url}"\nsample = "100%"\n[[routes]]\npath = "/r"\nrespond = {{ text = "r" }}\n'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.mark.parametrize("options", [("-w", "2"), ()], ids=["master", "process"])
async def test_each_process_exports_its_spans_and_all_kept_requests_are_listed(
    options: tuple[str, ...], receiver: Receiver, tmp_path: Path
) -> None:
    write(tmp_path, TEXT.format(url=receiver.url))
    async with started(*UMBEL, "serve", "--bind", "127.0.0.1:0", *options, cwd=tmp_path) as server:
        said = await server.line("master.ready" if options else "Umbel runs on")
        port = int(said.partition(" on http://127.0.0.1:")[2].split()[0])
        for _ in range(8):
            assert (await fetch(port, "GET", "/r")).status == 200
        path = tmp_path / "logs" / "admin.sock"
        _, state = await ask_admin(path, "GET", "/status")
        _, answer = await ask_admin(path, "GET", "/slow")
        kept = answer["requests"][0]
        _, one = await ask_admin(path, "GET", f"/slow/{kept['id']}")
        status, shown = await ended(*UMBEL, "slow", kept["id"], cwd=tmp_path)
        missing, _ = await ask_admin(path, "GET", "/slow/1-1")
        server.send(signal.SIGTERM)
        assert await server.end() == 0
    pids = {worker["pid"] for slot in state.get("slots", ()) for worker in slot["workers"]}
    pids = pids or {state["process"]["pid"]}
    assert answer["seen"] == {"/r": {"0": 8}}
    assert len(answer["requests"]) == 8
    assert {int(each["id"].partition("-")[0]) for each in answer["requests"]} <= pids
    assert one["timeline"]["trace_id"] == kept["trace_id"]
    assert (status, missing, shown.splitlines()[0][:17]) == (0, 404, "GET /r  200 compl")
    assert len(receiver.spans) == 8
    exporting = {attributes(of.resource)["process.pid"] for each in receiver.requests for of in each.resource_spans}
    assert exporting <= pids


async def test_a_worker_without_a_collector_serves_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, TEXT.format(url="http://127.0.0.1:1"))
    async with started(*UMBEL, "serve", "--bind", "127.0.0.1:0", cwd=tmp_path) as server:
        said = await server.line("Umbel runs on")
        port = int(said.partition(" on http://127.0.0.1:")[2].split()[0])
        assert (await fetch(port, "GET", "/r")).status == 200
        server.send(signal.SIGTERM)
        assert await server.end() == 0
    records = [json.loads(line) for line in (tmp_path / "logs" / "app.jsonl").read_text().splitlines()]
    (lost,) = [record for record in records if record["event"] == "traces.lost"]
    assert lost["msg"] == "1 of 1 spans were not exported"
