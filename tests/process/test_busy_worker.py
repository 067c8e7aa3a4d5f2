"""A worker whose event loop completes requests without a pause is busy and not hung: the master does not replace it."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.support.process.supervised import APP, supervised, write_app

HANG_TIMEOUT_S = 1.0
WORK_S = 0.04
CLIENTS = 60
"""Their requests arrive together, and take more than twice ``HANG_TIMEOUT_S`` in one turn of the loop."""
ROUNDS = 2


async def test_a_busy_worker_is_not_replaced(tmp_path: Path) -> None:
    work = f'if path == "/work":\n        time.sleep({WORK_S})\n    '
    write_app(tmp_path, APP.replace('if path == "/exit"', work + 'if path == "/exit"'))
    async with supervised(tmp_path, "--hang-timeout", f"{HANG_TIMEOUT_S}s", workers=1) as master:
        before = await master.pids()
        answers = 0

        async def client() -> None:
            nonlocal answers
            async with await trio.open_tcp_stream("127.0.0.1", master.port) as stream:
                for _ in range(ROUNDS):
                    await stream.send_all(b"GET /work HTTP/1.1\r\nhost: x\r\n\r\n")
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
                    answers += 1

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client)
        assert answers == CLIENTS * ROUNDS
        assert await master.pids() == before
    assert "worker.ended" not in master.child.output.partition("master.stopping")[0]
