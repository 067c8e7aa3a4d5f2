"""Autobahn's cases through a proxy route over HTTP/1.1 and HTTP/2: each ends as it does without the gateway."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from tools.external import ENVIRONMENTS, program

from tests.external.proxied_process import proxying
from tests.external.websocket.http2_bridge import bridge
from tests.support.process.processes import environment, started

HERE = Path(__file__).parent
PLACE = ENVIRONMENTS / "websocket"
PROTOCOL = tuple(f"{category}.*" for category in (*range(1, 8), 9, 10))
# The runner cannot run the groups 13.2, 13.5, 13.6 and 13.7: it raises a TypeError before it sends anything.
COMPRESSION = ("12.1", "12.2", "12.3", "12.4", "12.5", "13.1", "13.3", "13.4")
# Case N of a group compresses 1,000 messages; longer ones with each N up to 10, then in more and more fragments.
QUICK = tuple(f"{group}.{number}" for group in COMPRESSION for number in (1, 2))
CONCURRENCY = 4


async def results(port: int, cases: tuple[str, ...]) -> dict[str, Any]:
    """The result of each case against the server at ``port``."""
    command = [str(PLACE / "bin" / "python"), str(HERE / "run_cases.py"), f"ws://127.0.0.1:{port}/ws", str(CONCURRENCY)]
    done = await trio.run_process([*command, *cases], cwd=PLACE, env=environment(), capture_stdout=True)
    told: dict[str, Any] = json.loads(done.stdout)
    print(len(told), "cases done")
    return told


@pytest.mark.timeout(3700)
async def test_each_case_ends_through_the_tunnel_as_without_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    every = request.config.getoption("--every-case", default=False)
    compression = tuple(f"{group}.*" for group in COMPRESSION) if every else QUICK
    cases = PROTOCOL + compression
    server = [program("node") or "node", str(HERE / "echo.mjs")]
    with trio.fail_after(3600 if every else 600):
        async with started(*server, cwd=PLACE) as echo:
            upstream = int((await echo.address()).rpartition(":")[2])
            async with proxying(upstream, tmp_path) as gateway, bridge(gateway.port) as over_http2:
                direct, http1, http2 = [await results(port, cases) for port in (upstream, gateway.port, over_http2)]
    print(f"\n{len(direct)} cases: {Counter(each['behavior'] for each in direct.values())}")
    assert len(direct) == (445 if every else 317)
    assert {"FAILED", "ERROR"}.isdisjoint(each["behavior"] for each in direct.values())
    assert http1 == direct
    assert http2 == direct
