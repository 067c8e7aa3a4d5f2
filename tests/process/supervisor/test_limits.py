"""Limits that real workers share: the rate under load, what a worker knows that begins, reloads, wrapped gateways.

``UMBEL_SOAK`` (``make soak``) makes the load last 60 s instead of 6.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import write
from tests.support.process.admin import ask_admin
from tests.support.process.supervised import TEST_TIMEOUT_S, Supervised, supervised, write_app
from tests.support.server.serving import fetch
from tests.support.soak import SOAK

SECONDS = 60 if SOAK else 6
RATE, BURST, WORKERS, SYNC = 60, 20, 3, 0.1
WAYS = 0.1
"""The bound on the two ways of the messages, in seconds, on a busy machine."""
CLIENTS = 12
CONFIG = """
[limits.quota]
key = "'all'"
rate = "{rate}"
burst = {burst}
[[routes]]
path = "/r"
limits = "quota"
respond = {{ text = "hello" }}
"""
REQUEST = b"GET /r HTTP/1.1\r\nhost: x\r\n\r\n"


async def limits_of_workers(master: Supervised) -> dict[int, dict[str, int]]:
    """The statistics of the limit in each worker that answers, by its pid."""
    _, status = await ask_admin(master.socket, "GET", "/status")
    workers = [worker for slot in status["slots"] for worker in slot["workers"]]
    return {each["pid"]: each["stats"]["app"]["limits"][0] for each in workers if "stats" in each}


class Load:
    """Clients that together send three times the rate over connections of their own."""

    def __init__(self, port: int) -> None:
        self.port, self.asked, self.admitted = port, 0, 0

    async def client(self) -> None:
        due = trio.current_time()
        while True:  # Each connection is of another worker by chance.
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                for _ in range(10):
                    due += CLIENTS / (3 * RATE)
                    await trio.sleep_until(due)
                    await stream.send_all(REQUEST)
                    answer = await stream.receive_some()
                    self.asked += 1
                    self.admitted += answer.startswith(b"HTTP/1.1 200")


@pytest.mark.timeout(SECONDS + 60)
async def test_workers_admit_the_rate_together_at_three_times_the_load(tmp_path: Path) -> None:
    write(tmp_path, CONFIG.format(rate=f"{RATE}/s", burst=BURST))
    async with supervised(tmp_path, workers=WORKERS, app=None) as master:
        load = Load(master.port)
        began = trio.current_time()
        with trio.move_on_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(load.client)
        took = trio.current_time() - began
        assert all(each["admitted"] for each in (await limits_of_workers(master)).values())
    exact = RATE * took + BURST
    bound = (WORKERS - 1) * (BURST + RATE * (SYNC + WAYS))
    print(f"{load.asked} requests in {took:.1f} s: {load.admitted} admitted; {exact:.0f} + at most {bound:.0f}")
    assert load.asked > 2 * RATE * took
    assert load.admitted <= exact + bound
    # The debt of the beginning is paid off, so that the rate is exact in the long run. Less than the whole burst may be
    # left at the end, and the answers of the last requests may not have come.
    assert load.admitted >= RATE * took - CLIENTS


async def test_a_worker_that_begins_knows_what_was_spent_before(tmp_path: Path) -> None:
    write(tmp_path, CONFIG.format(rate="1/h", burst=5))
    async with supervised(tmp_path, workers=2, app=None) as master:
        before = await limits_of_workers(master)
        with trio.fail_after(TEST_TIMEOUT_S):
            while 200 in [(await fetch(master.port, "GET", "/r")).status for _ in range(10)]:
                pass
        master.signal(signal.SIGHUP)
        await master.line("reload.done")
        with trio.fail_after(TEST_TIMEOUT_S):
            while True:
                after = await limits_of_workers(master)
                if not after.keys() & before and [each["keys"] for each in after.values()] == [1, 1]:
                    break
                await wait_all_tasks_blocked(0.05)
        assert {(await fetch(master.port, "GET", "/r")).status for _ in range(20)} == {429}


async def spend_all(master: Supervised, path: str = "/r") -> int:
    """Send requests until twenty in a row are refused, so that all workers know; return how many were admitted.

    What is admitted at first is known to all workers before more is sent.
    """
    admitted = refused = 0
    with trio.fail_after(TEST_TIMEOUT_S):
        while refused < 20:
            status = (await fetch(master.port, "GET", path)).status
            assert status in (200, 429)
            admitted, refused = (admitted + 1, 0) if status == 200 else (admitted, refused + 1)
            if admitted == 1 and not refused:
                await wait_all_tasks_blocked(10 * SYNC)
    return admitted


async def test_a_limit_that_a_reload_changes_begins_anew_and_another_one_does_not(tmp_path: Path) -> None:
    kept = '[limits.kept]\nkey = "\'all\'"\nrate = "1/h"\nburst = 1\n'
    kept += '[[routes]]\npath = "/kept"\nlimits = "kept"\nrespond = { text = "hello" }\n'
    write(tmp_path, CONFIG.format(rate="1/d", burst=1) + kept)
    async with supervised(tmp_path, workers=2, app=None) as master:
        assert [await spend_all(master), await spend_all(master, "/kept")] == [1, 1]
        write(tmp_path, CONFIG.format(rate="1/h", burst=1) + kept)
        master.signal(signal.SIGHUP)
        await master.line("reload.done")
        assert [await spend_all(master), await spend_all(master, "/kept")] == [1, 0]
        assert (await ask_admin(master.socket, "GET", "/status"))[1]["master"]["limits"].keys() == {"quota", "kept"}


WRAPPER = """
from pathlib import Path
from umbel import Umbel

gateway = Umbel.from_file(Path(__file__).with_name("umbel.toml"))

async def app(scope, receive, send):
    await gateway(scope, receive, send)
"""


async def test_workers_share_the_limits_of_a_gateway_that_another_application_wraps(tmp_path: Path) -> None:
    write(tmp_path, CONFIG.format(rate="1/h", burst=1))
    write_app(tmp_path, WRAPPER)
    async with supervised(tmp_path, workers=3) as master:
        assert await spend_all(master) == 1
        assert (await ask_admin(master.socket, "GET", "/status"))[1]["master"]["limits"]["quota"]["keys"] == 1
