"""The stop of a master: requests in flight finish, and clients that do not read delay it only to its limit."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import trio

from tests.support.process.supervised import supervised

WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CLOSE_1001 = re.compile(rb"\x88.\x03\xe9", re.DOTALL)


async def rest_of(stream: trio.SocketStream) -> bytes:
    """Receive until the end of the stream."""
    received = b""
    try:
        async for piece in stream:
            received += piece
    except trio.BrokenResourceError:
        pass
    return received


async def test_a_busy_request_finishes_while_idle_workers_end(tmp_path: Path) -> None:
    answers: list[bytes] = []
    async with supervised(tmp_path, workers=3) as master:

        async def slow() -> None:
            answers.append(await master.get("/slow"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            await master.appeared("slow")
            master.signal(signal.SIGTERM)
            for _ in range(2):
                assert "drained" in await master.line("worker.ended")
            (tmp_path / "release").touch()
        assert await master.child.end() == 0

    assert answers[0].startswith(b"HTTP/1.1 200")
    assert master.child.output.count("ended: drained (exit status 0)") == 3


async def test_streams_websockets_uploads_and_stuck_readers_end_within_the_grace(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--graceful-timeout", "500ms", workers=1) as master:
        sse = await master.connected(b"GET /sse HTTP/1.1\r\nhost: x\r\n\r\n", until=b"data:")
        websocket = await master.connected(WEBSOCKET)
        stuck = await master.connected(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        upload = await trio.open_tcp_stream("127.0.0.1", master.port)
        await upload.send_all(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbeginning")
        await master.appeared("uploading")
        async with sse, websocket, stuck, upload:
            began = trio.current_time()
            master.signal(signal.SIGTERM)
            status = await master.child.end()
            took = trio.current_time() - began
            closing = await rest_of(websocket)

    assert status == 0
    assert CLOSE_1001.search(closing)
    assert took < 10 * (0.5 + 5)
    assert "ended: drained" in master.child.output


async def test_a_blocked_loop_delays_a_stop_only_to_its_limit(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--graceful-timeout", "200ms", "--hang-timeout", "1s", workers=1) as master:
        stream = await trio.open_tcp_stream("127.0.0.1", master.port)
        async with stream:
            await stream.send_all(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
            await master.appeared("blocked")
            master.signal(signal.SIGTERM)
            assert await master.child.end() == 0

    assert "ended: hang (SIGABRT)" in master.child.output


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]])
async def test_a_quick_stop_cuts_requests_in_flight(tmp_path: Path, signals: list[signal.Signals]) -> None:
    async with supervised(tmp_path, workers=1) as master:
        sse = await master.connected(b"GET /sse HTTP/1.1\r\nhost: x\r\n\r\n", until=b"data:")
        async with sse:
            for number in signals:
                master.signal(number)
                await master.line("master.stopping: ")
            assert await master.child.end() == 0

    assert f"{signals[-1].name}: 1 workers end at once" in master.child.output


async def test_a_worker_that_gets_sigterm_directly_drains_and_is_restarted(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=1) as master:
        before = (await master.pids())[1]
        os.kill(before, signal.SIGTERM)
        assert "drained (exit status 0)" in await master.line(f"({before}) ended")
        await master.line("worker.ready")
        assert (await master.pids())[1] != before
