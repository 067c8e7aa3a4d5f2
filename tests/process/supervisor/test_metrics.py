"""Metrics of a master with real workers: sums that never fall and are right while workers die, reload and hang."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.support.process.admin import ask_admin_bytes
from tests.support.process.supervised import TEST_TIMEOUT_S, Supervised, supervised

APP = """
import os
from umbel import Umbel

app = Umbel.from_file()

@app.compose("/r")
async def compose_r(compose):
    async with compose.gather() as g:
        part = g.get("up", "/part", name="part")
    return {"pid": os.getpid(), "part": part.value}
"""
PART = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
REQUESTS = "http_server_request_duration_seconds_count"
CALLS = "umbel_calls_total"
ATTEMPTS = "umbel_attempts_total"
PAUSE_S = 0.02
"""The pause of each client between two requests, so that the load stays small."""
UNSENT_S = 1.5
"""A worker sends its figures once a second; a killed one loses what it counted since. Half a second of tolerance."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(master: Supervised) -> tuple[Samples, Samples]:
    """Scrape once, and return all samples, and those that must never fall."""
    status, text = await ask_admin_bytes(master.socket, "GET", "/metrics")
    assert status == 200, text
    samples: Samples = {}
    rising: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            samples[key] = sample.value
            if family.type in ("counter", "histogram"):
                rising[key] = sample.value
    return samples, rising


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for (each, found), value in samples.items() if each == name and labels.items() <= set(found))


async def serve_part(stream: trio.SocketStream) -> None:
    """Upstream that answers each request of a kept connection with an empty object."""
    received = b""
    # A killed worker resets its connections.
    with suppress(trio.BrokenResourceError):
        async with stream:
            while piece := await stream.receive_some():
                received += piece
                while b"\r\n\r\n" in received:
                    received = received.partition(b"\r\n\r\n")[2]
                    await stream.send_all(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                    )


class Traffic:
    """Clients that send requests one after the other, and note each 200 with its worker."""

    def __init__(self, master: Supervised) -> None:
        self._master = master
        self.answered: list[tuple[float, int]] = []
        """The time and the pid of each response."""
        self.sent = 0
        self._answered = trio.Event()

    async def client(self) -> None:
        while True:
            self.sent += 1
            try:
                response = await self._master.get("/r")
            except (OSError, trio.BrokenResourceError):
                response = b""  # The worker was killed.
            if response.startswith(b"HTTP/1.1 200"):
                self.answered.append((trio.current_time(), json.loads(response.partition(b"\r\n\r\n")[2])["pid"]))
                self._answered.set()
            await trio.sleep(PAUSE_S)

    async def until(self, count: int) -> None:
        """Wait until ``count`` further requests were answered."""
        wanted = len(self.answered) + count
        with trio.fail_after(TEST_TIMEOUT_S):
            while len(self.answered) < wanted:
                self._answered = trio.Event()
                await self._answered.wait()


class Watch:
    """Scrapes again and again, and asserts that no counter and no histogram falls or disappears."""

    def __init__(self, master: Supervised) -> None:
        self._master = master
        self._before: Samples = {}
        self.scrapes = 0

    async def look(self) -> Samples:
        samples, rising = await scrape(self._master)
        fallen = {key: (value, rising.get(key)) for key, value in self._before.items() if rising.get(key, -1.0) < value}
        assert fallen == {}
        self._before = rising
        self.scrapes += 1
        return samples

    async def run(self) -> None:
        while True:
            await self.look()
            await trio.sleep(0.05)


@asynccontextmanager
async def serving(directory: Path) -> AsyncGenerator[tuple[Supervised, Traffic]]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, serve_part, [listener]))
        (directory / "served.py").write_text(APP)
        (directory / "umbel.toml").write_text(f'[upstreams.up]\nurls = ["http://127.0.0.1:{port}"]\n')
        async with supervised(directory, "--allow-empty", workers=2) as master:
            yield master, Traffic(master)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_sums_never_fall_and_are_right_through_kills_and_reloads(tmp_path: Path) -> None:
    async with serving(tmp_path) as (master, traffic):
        watch = Watch(master)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            for _ in range(3):
                nursery.start_soon(traffic.client)
            await traffic.until(60)
            killed = (await master.pids())[1]
            await traffic.until(20)
            killed_at = trio.current_time()
            os.kill(killed, signal.SIGKILL)
            await master.line("worker.ready: worker 1")
            await traffic.until(20)
            assert (await master.ask(command="reload"))["ok"]
            await traffic.until(20)
            assert (await master.ask(command="drain", slot=2))["ok"]
            await master.line("ended: recycle")
            await traffic.until(20)
            nursery.cancel_scope.cancel(reason="enough")
        samples = await watch.look()
    assert watch.scrapes > 10
    unsent = sum(pid == killed and at > killed_at - UNSENT_S for at, pid in traffic.answered)
    route = {"http_route": "/r", "http_response_status_code": "200"}
    assert len(traffic.answered) - unsent <= total(samples, REQUESTS, **route) <= traffic.sent
    assert len(traffic.answered) - unsent <= total(samples, CALLS, route="/r", call="part", outcome="ok")
    assert total(samples, CALLS) <= traffic.sent
    assert len(traffic.answered) - unsent <= total(samples, ATTEMPTS, upstream="up") <= traffic.sent
    assert total(samples, "umbel_worker_restarts_total", why="signal") == 1
    assert total(samples, "umbel_worker_restarts_total", why="recycle") == 1
    assert total(samples, "umbel_config_reload_total", result="ok") == 1


async def test_sums_are_exact_if_no_worker_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (master, _):
        for _ in range(10):
            assert b'"part":{}' in await master.get("/r")
        assert (await master.ask(command="reload"))["ok"]  # The old workers have ended, or send on while they drain.
        for _ in range(5):
            assert b"404" in (await master.get("/nowhere")).splitlines()[0]
        samples, _ = await scrape(master)
    assert total(samples, REQUESTS, http_route="/r") == 10
    assert total(samples, REQUESTS, http_response_status_code="404") == 5
    assert total(samples, "umbel_answers_total", route="/r", outcome="complete") == 10
    assert total(samples, "umbel_own_seconds_count", route="/r") == 10
    assert total(samples, "http_client_request_duration_seconds_count", upstream="up") == 10
    assert total(samples, "umbel_workers", state="serving") == 2


async def test_a_stopped_worker_counts_with_its_last_figures(tmp_path: Path) -> None:
    async with serving(tmp_path) as (master, _):
        watch = Watch(master)
        for _ in range(10):
            await master.get("/r")
        samples = await watch.look()
        assert total(samples, REQUESTS) == 10
        assert total(samples, "umbel_worker_stale") == 0
        stopped = (await master.pids())[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            samples = await watch.look()
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert total(samples, "umbel_worker_stale", worker="1") == 1
        assert total(samples, "umbel_worker_stale", worker="2") == 0
        assert total(samples, REQUESTS) == 10
