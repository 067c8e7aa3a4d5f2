"""What the views of the console show of a master: traffic of all workers, plans, configuration, and reloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

from tests.support.process.admin import ask_admin
from tests.support.process.supervised import supervised
from tests.support.upstream.raw_server import answering, raw_server, response

CONFIG = """
[upstreams.up]
urls = ["http://127.0.0.1:{port}"]
headers = {{ authorization = "Bearer planted-{word}", x-tenant = "${{TENANT}}" }}

[[routes]]
path = "/a"
deadline = "{deadline}"

[routes.calls.c]
upstream = "up"
path = "/"
"""


async def sample_of(path: Path, topic: str, number: int = 1) -> dict[str, Any]:
    """A sample of a topic: the first one may be that of the page before, the second one is new."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(f"GET /events?topic={topic} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        received = b""
        while received.count(b"\n\n") <= number:  # The first block has no data.
            received += await stream.receive_some()
    sample: dict[str, Any] = json.loads(received.split(b"\n\n")[number].partition(b"\ndata: ")[2])
    return sample


async def test_a_master_shows_the_traffic_of_all_workers_and_what_a_reload_changed(tmp_path: Path) -> None:
    async with raw_server(answering(response(b"{}", b"Content-Type: application/json"))) as upstream:
        config = tmp_path / "umbel.toml"

        def write(word: str, deadline: str) -> None:
            config.write_text(CONFIG.format(port=int(upstream), word=word, deadline=deadline))

        write("one", "2s")
        path = tmp_path / "logs" / "admin.sock"
        async with supervised(tmp_path, app=None, env={"TENANT": "planted-tenant"}) as master:
            for _ in range(8):
                assert (await master.get("/a")).startswith(b"HTTP/1.1 200")
            [route] = (await sample_of(path, "routes"))["routes"]
            assert (route["route"], route["total"]["requests"], route["calls"][0]["total"]["ok"]) == ("/a", 8, 8)
            upstreams = await sample_of(path, "upstreams")
            [up] = upstreams["upstreams"]
            assert (upstreams["silent"], up["total"]["answered"], up["bulkhead"]["limit"]) == ([], 8, 200)
            assert [each["process"] for each in up["processes"]] == ["worker 1", "worker 2"]
            assert len((await sample_of(path, "slow"))["requests"]) == 8
            _, plans = await ask_admin(path, "GET", "/plan?route=/a")
            assert [call["name"] for call in plans["plans"][0]["calls"]] == ["c"]
            assert (await ask_admin(path, "GET", "/plan?route=/b"))[0] == 404
            assert await sample_of(path, "config") == {"generation": 1, "last_reload": None}

            write("two", "3s")
            assert (await master.ask(command="reload"))["ok"]
            reload = (await sample_of(path, "config", 2))["last_reload"]
            assert (reload["failure"], reload["changes"]["added"], reload["changes"]["removed"]) == ("", [], [])
            assert {row["key"]: (row["before"], row["after"]) for row in reload["changes"]["changed"]} == {
                "upstreams.up.headers.authorization": ("[redacted]", "[redacted]"),
                'routes."/a".deadline': ("2s", "3s"),
            }
            status, shown = await ask_admin(path, "GET", "/config")
            assert status == 200
            values = {row["key"]: row["value"] for row in shown["rows"]}
            assert values["upstreams.up.headers.x-tenant"] == '"${TENANT}"'
            assert "planted" not in json.dumps([reload, shown, upstreams, plans])

            write("two", "nonsense")
            assert not (await master.ask(command="reload"))["ok"]
            failed = (await sample_of(path, "config", 2))["last_reload"]
            assert "umbel.toml:8" in failed["failure"]
            assert failed["changes"] is None
