"""Chromium through a proxy route: EventSource, WebSocket, an upload with progress, a streamed response, a drain."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.external.proxied_process import proxying
from tests.support.upstream.raw_server import raw_server

from .browsing import SECONDS_MAX, browser, settings_of
from .proxied_upstream import Upstream


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_page_sees_streams_as_if_it_had_asked_the_upstream_itself(tmp_path: Path, protocol: str) -> None:
    upstream, scheme = Upstream(), "https" if protocol == "h2" else "http"
    settings = "".join(f'{name} = "{value}"\n' for name, value in settings_of(protocol, tmp_path).items())
    async with raw_server(upstream) as port, proxying(int(port), tmp_path / "gateway", settings=settings) as gateway:
        own = f"http://localhost:{int(port)}"
        with trio.fail_after(SECONDS_MAX - 10):
            async with browser(tmp_path / "profile", f"{scheme}://localhost:{gateway.port}/page?{own}"):
                await upstream.ready_to_drain.wait()
                gateway.process.send_signal(signal.SIGTERM)
                await upstream.done.wait()
    seen = upstream.seen
    # The upstream has broken off after the second event; 0: the browser is connecting again.
    assert seen["eventSource"] == [["1", "first"], ["2", "second"], ["error", 0], ["3", "last"]]
    assert upstream.asked == [None, "2"]
    assert seen["webSocket"] == {
        "protocol": "v1",
        "text": "hello",
        "binary": [1_000_000, True],
        "end": [4321, "own", True],
        "noProtocol": "",
        "otherEnd": [3456, "of the upstream", True],
    }
    assert seen["refusedWebSocket"] == 1006
    assert seen["upload"] == {"status": 201, "body": "stored", "grows": True, "several": True, "total": True}
    assert upstream.upload_size == (10_000_000 if protocol == "h2" else 200_000_000)
    assert 0 < seen["progress"] < upstream.upload_size
    assert seen["streaming"] == ["piece 0", "piece 1", "piece 2"]
    assert seen["draining"] == [1012, "", True]
