"""The records of killed workers, and the field ``worker``."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.support.process.supervised import supervised

CONFIG = """
[logs]
ring = true
flush_every = "30s"
[upstreams.u]
urls = ["http://127.0.0.1:9"]
[[routes]]
path = "/r"
[routes.calls.a]
upstream = "u"
path = "/a"
optional = true
default = 1
"""


async def test_the_master_recovers_the_records_of_a_killed_worker(
    tmp_path: Path,
) -> None:
    (tmp_path / "umbel.toml").write_text(CONFIG)
    async with supervised(tmp_path, workers=1, app=None) as master:
        for _ in range(5):
            assert (await master.get("/r")).startswith(b"HTTP/1.1 200")
        (worker,) = (await master.pids()).values()
        # The master stops at the same time, so no new worker can recover the rings.
        os.kill(worker, signal.SIGKILL)
        master.signal(signal.SIGTERM)
        assert await master.child.end() == 0

    access = [json.loads(line) for line in (tmp_path / "logs" / "access.jsonl").read_bytes().splitlines()]
    assert [line["http.route"] for line in access] == ["/r"] * 5
    assert {line["worker"] for line in access} == {"1"}
