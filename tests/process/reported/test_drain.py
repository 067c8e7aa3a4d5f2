"""The drain of a real worker with requests that exceed ``graceful_timeout``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.support.process.processes import started
from tests.support.server.serving import connected

APP = """
import trio
from umbel import Umbel

app = Umbel("stops", static_folder=None)

@app.get("/hang")
async def hang():
    print("hanging", flush=True)
    await trio.sleep_forever()
"""


@pytest.mark.parametrize(
    ("options", "number"),
    [
        (("--graceful-timeout", "300ms"), signal.SIGTERM),
        (("--graceful-timeout", "300ms", "-w", "1"), signal.SIGTERM),
        (("--graceful-timeout", "0s", "-w", "1"), signal.SIGTERM),
        (("-w", "1"), signal.SIGQUIT),
    ],
    ids=["alone", "under a master", "under a master without grace", "quickly under a master"],
)
async def test_a_request_that_exceeds_the_grace_gets_503_and_a_record(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    (tmp_path / "stops.py").write_text(APP)
    command = (sys.executable, "-m", "umbel", "serve", "stops:app", "-b", "127.0.0.1:0")
    with trio.fail_after(60):
        async with started(*command, *options, cwd=tmp_path) as child:
            address = await child.address()
            async with connected(int(address.rpartition(":")[2])) as client:
                await client.send("GET", "/hang")
                await child.line("hanging")
                child.send(number)
                reply = await client.reply()
            assert (reply.status, reply["retry-after"], reply["connection"]) == (503, "1", "close")
            await child.end()
    records = [json.loads(line) for line in (tmp_path / "logs" / "access.jsonl").read_text().splitlines()]
    (record,) = [record for record in records if record["event"] == "request.end"]
    assert (record["http.response.status_code"], record["request_id"]) == (503, reply["x-request-id"])
