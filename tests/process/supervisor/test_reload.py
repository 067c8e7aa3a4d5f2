"""Reloads and recycling: no request fails, and broken code or configuration aborts a reload."""

from __future__ import annotations

import signal
from pathlib import Path

import trio

from tests.support.process.supervised import APP, Supervised, supervised, write_app

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CONNECTIONS = 20
PACE_S = 0.005
"""A client's pause between two requests: the load is to be there, not to starve the workers that start."""


class Load:
    """Clients with one kept connection each, which count every failure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers = 0
        self.failures: list[str] = []
        self.versions: set[bytes] = set()

    async def client(self) -> None:
        """Send two hundred requests a second; open a new connection after ``Connection: close``."""
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                while await self._request(stream):
                    pass

    async def _request(self, stream: trio.SocketStream) -> bool:
        await trio.sleep(PACE_S)
        try:
            await stream.send_all(REQUEST)
            answer = await stream.receive_some()
        except trio.BrokenResourceError as error:
            answer = repr(error).encode()
        if not answer.startswith(b"HTTP/1.1 200"):
            self.failures.append(answer.decode())
            return False
        self.answers += 1
        self.versions.add(answer.rpartition(b" ")[2])
        return b"connection: close" not in answer.lower()


async def reloaded(master: Supervised) -> None:
    master.signal(signal.SIGHUP)
    await master.line("reload.done")


async def test_a_reload_under_load_fails_no_request_and_brings_the_new_code(tmp_path: Path) -> None:
    async with supervised(tmp_path) as master, trio.open_nursery() as nursery:
        load = Load(master.port)
        for _ in range(CONNECTIONS):
            nursery.start_soon(load.client)
        # The length must differ: Python takes a file of the same second and length for unchanged.
        write_app(tmp_path, APP.replace("VERSION = 1", "VERSION = 2  # anew"))
        await reloaded(master)
        with trio.fail_after(20):
            # Each round checks once: under load there is no quiet moment to wait for.
            while (await master.get()).rpartition(b" ")[2] != b"2" or b"2" not in load.versions:
                await trio.lowlevel.checkpoint()
        await reloaded(master)
        nursery.cancel_scope.cancel()

    assert load.failures == []
    assert load.answers > CONNECTIONS
    assert load.versions == {b"1", b"2"}


async def test_broken_code_or_configuration_aborts_a_reload_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("")
    async with supervised(tmp_path) as master:
        before = await master.pids()

        write_app(tmp_path, "this is no Python\n")
        master.signal(signal.SIGHUP)
        line = await master.line("reload.aborted")
        assert "the new worker 1 did not get ready" in line
        assert "SyntaxError" in master.child.output
        write_app(tmp_path)

        (tmp_path / "umbel.toml").write_text("[server]\nhead_timeot = 3\n")
        answer = await master.ask(command="reload")
        assert not answer["ok"]
        assert "umbel.toml:2: server.head_timeot" in answer["error"]

        (tmp_path / "umbel.toml").write_text("[admin]\nmetrics = '127.0.0.1:0'\n")
        answer = await master.ask(command="reload")
        assert "umbel.toml: admin: metrics cannot be changed by a reload; restart the master" in answer["error"]
        assert await master.pids() == before
        assert (await master.get()).endswith(b" 1")

        (tmp_path / "umbel.toml").write_text("")
        assert (await master.ask(command="reload"))["ok"]
        assert not set((await master.pids()).values()) & set(before.values())


async def test_hups_during_a_reload_are_merged_into_one_further_reload(tmp_path: Path) -> None:
    started = 'await send({"type": "lifespan.startup.complete"})'
    held = f'while (HERE / "hold").exists():\n        await trio.sleep(0.01)\n    {started}'
    write_app(tmp_path, APP.replace(started, held))
    async with supervised(tmp_path, workers=1) as master:
        (tmp_path / "hold").touch()
        master.signal(signal.SIGHUP)
        await master.line("reload.started")
        for _ in range(5):
            master.signal(signal.SIGHUP)
            await master.pids()  # The answer shows that the master has read the signal.
        (tmp_path / "hold").unlink()
        await master.line("reload.done")
        await master.line("reload.done")
        assert await master.child.stop(signal.SIGTERM) == 0

    assert master.child.output.count("reload.started") == 2


async def test_a_worker_past_max_requests_serves_until_its_successor_is_ready(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--max-requests", "3", workers=1) as master, trio.open_nursery() as nursery:
        before = (await master.pids())[1]
        answers: list[bytes] = []

        async def slow() -> None:
            answers.append(await master.get("/slow"))

        nursery.start_soon(slow)
        await master.appeared("slow")
        for _ in range(2):
            await master.get()
        assert "(max_requests)" in await master.line("worker.recycle")
        assert (await master.get()).endswith(b"%d 1" % before)  # The successor is not ready yet.
        await master.line("worker.ready")
        (tmp_path / "release").touch()
        assert f"({before}) ended: recycle (exit status 0)" in await master.line("worker.ended")

    assert answers[0].endswith(b"%d 1" % before)


async def test_a_worker_past_max_rss_or_max_lifetime_is_replaced(tmp_path: Path) -> None:
    async with supervised(tmp_path, "--max-rss", "1MB", workers=1) as master:
        assert "(max_rss)" in await master.line("worker.recycle")
        await master.line("ended: recycle")
    async with supervised(tmp_path, "--max-lifetime", "500ms", workers=1) as master:
        assert "(max_lifetime)" in await master.line("worker.recycle")
        await master.line("ended: recycle")
