"""Random signals under load: in the end the number of workers is right, and each request is accounted for.

Drawn from a seed that is in the output; ``UMBEL_SOAK`` (``make soak``) makes a thousand of them.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.support.process.fork_server import BY_EXEC
from tests.support.process.supervised import TEST_TIMEOUT_S, Supervised, is_alive, supervised
from tests.support.soak import SOAK

SIGNALS = 1000 if SOAK else 30
SPACING_S = 0.12 if SOAK else 0.1
CLIENTS = 8
PACE_S = 0.005
MASTERS = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGCHLD)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Tally:
    """The counts of requests by their result."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.cut = 0
        self.refused = 0


async def client(port: int, tally: Tally, until: trio.Event) -> None:
    while not until.is_set():
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            tally.refused += 1
            continue
        async with stream:
            while not until.is_set() and await _request(stream, tally):
                pass


async def _request(stream: trio.SocketStream, tally: Tally) -> bool:
    await trio.sleep(PACE_S)
    tally.sent += 1
    answer = b""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(REQUEST)
        answer = await stream.receive_some()
    if not answer.startswith(b"HTTP/1.1 200"):
        tally.cut += 1
        return False
    tally.answered += 1
    return b"connection: close" not in answer.lower()


def children(pid: int) -> dict[int, str]:
    """Return the child processes of a process, with their states."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(parent) == pid:
                    found[int(entry.name)] = state
    return found


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.timeout(900 if SOAK else 120)
async def test_random_signals_leave_the_right_number_of_workers(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    tally, over = Tally(), trio.Event()
    kills = 0
    # The test kills often, which must not degrade the master.
    options = ("--intensity-restarts", "1000", "--restart-max-delay", "200ms")
    async with supervised(tmp_path, *options, workers=2, env={BY_EXEC: "1"}) as master:
        before = descriptors(master.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, master)
            for _ in range(CLIENTS):
                nursery.start_soon(client, master.port, tally, over)
            for _ in range(SIGNALS):
                if draw.random() < 0.1:
                    victims = [pid for pid, state in children(master.pid).items() if state != "Z"]
                    if victims:
                        kills += 1
                        with suppress(ProcessLookupError):
                            os.kill(draw.choice(victims), signal.SIGKILL)
                else:
                    master.signal(draw.choice(MASTERS))
                await trio.testing.wait_all_tasks_blocked(0.0)
                with trio.move_on_after(SPACING_S):
                    await over.wait()
            over.set()
            await _settle(master)
            nursery.cancel_scope.cancel()
        answer = await master.ask(command="status")
        size = answer["master"]["size"]
        alive = children(master.pid)
        assert answer["master"]["ready"] == size
        assert len(alive) == size, answer
        assert "Z" not in alive.values()
        # The master's descriptors of a worker: channel, stderr and pidfd.
        assert descriptors(master.pid) - before == 3 * (size - 2)
        assert tally.refused == 0
        assert tally.sent == tally.answered + tally.cut
        # A killed worker fails the requests that were in flight in it, and no others.
        assert tally.cut <= kills * CLIENTS
        assert tally.answered > SIGNALS
        everybody = list(alive)
    assert not any(map(is_alive, everybody))
    assert "Traceback" not in master.child.output


async def _read(master: Supervised) -> None:
    """Read the output, so that the pipe does not fill."""
    with suppress(AssertionError):
        while True:
            with suppress(trio.TooSlowError):
                await master.line("no line has this")


async def _settle(master: Supervised) -> None:
    """Wait until no reload runs and no worker starts or drains."""
    calm = 0
    with trio.fail_after(2 * TEST_TIMEOUT_S):
        while calm < 3:
            answer = await master.ask(command="status")
            states = [worker["state"] for slot in answer["slots"] for worker in slot["workers"]]
            is_calm = states == ["serving"] * answer["master"]["size"] == ["serving"] * len(children(master.pid))
            calm = calm + 1 if is_calm else 0
            with trio.move_on_after(0.3):
                await trio.sleep_forever()
