"""HTTP clients of Node.js against the gateway: http, http2, fetch, undici, ws and eventsource."""

from __future__ import annotations

import json
from pathlib import Path

from tools.external import ENVIRONMENTS, program

from tests.external.site import site
from tests.support.process.processes import ended

CLIENTS = Path(__file__).with_name("clients.mjs")


async def test_each_client_gets_its_responses(tmp_path: Path) -> None:
    async with site(tmp_path) as (running, upstream):
        upstream.late.set()
        command = [program("node") or "node", str(CLIENTS), f"http://127.0.0.1:{running.port}"]
        status, said = await ended(*command, cwd=ENVIRONMENTS / "node")
        assert status == 0, said
    seen = json.loads(said)
    *calls, end = [name for name, _ in seen.pop("byEventSource")["events"]]
    # Both calls end at once, in any order.
    assert (sorted(calls), end) == (["late", "part"], "end")
    assert seen == {
        "byHttp": {"statuses": [200], "connections": 4},
        "byUndici": {"statuses": [200]},
        "byFetch": {"first": 200, "again": 304, "same": 200_000},
        "byHttp2": {"statuses": [200, 404]},
        "byWebSocket": {"said": "hello", "large": True, "pong": "p", "code": 1000},
        "leaving": {"how": "AbortError"},
    }
    kinds = [line["kind"] for line in running.lines("access") if line.get("url.path") == "/hangs"]
    assert kinds == ["client-gone"]
