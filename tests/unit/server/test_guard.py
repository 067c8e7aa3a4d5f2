"""The guard: a deadline on each write, and the private name that it replaces."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from typing import Any

import pytest
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer

from umbel.gateway.app import Umbel
from umbel.server import guard

MockClock = trio.testing.MockClock

# Of hypercorn 0.18.0. If this fails, read the new code, see what of it the guard must keep, then write the new hash.
GUARDED = "2a17dc60a6264d53"


def test_the_replaced_function_is_the_one_that_the_guard_was_written_for() -> None:
    # Without white space, so that reformatting is no alarm.
    code = "".join(inspect.getsource(guard._unguarded).split())
    assert hashlib.sha256(code.encode()).hexdigest()[:16] == GUARDED


def test_making_an_umbel_installs_the_guard() -> None:
    Umbel(__name__)
    assert guard.installed()


@pytest.mark.parametrize(("value", "installed"), [("off", "False"), ("on", "True")])
def test_the_environment_switches_it_off(value: str, installed: str) -> None:
    code = "from umbel.server import guard; guard.install(); print(guard.installed())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"UMBEL_GUARD": value}
    )
    assert done.stdout.strip() == installed


class Protocol:
    def __init__(self) -> None:
        self.handled: list[Any] = []

    async def handle(self, event: Any) -> None:
        self.handled.append(event)


class App:
    write_timeout = 2.0


class Wrapped:
    app = App()


def server_over(stream: Any) -> TCPServer:
    guard.install()
    server = TCPServer.__new__(TCPServer)
    server.app = Wrapped()
    server.send_lock = trio.Lock()
    server.stream = stream
    server.protocol = Protocol()
    return server


class StuckStream(trio.abc.SendStream):
    """Takes ``pieces`` writes, one per second, and then no more."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.taken = 0
        self.closed = False

    async def send_all(self, data: Any) -> None:
        if self.taken == self.pieces:
            await trio.sleep_forever()
        await trio.sleep(1)
        self.taken += 1

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_a_write_that_stands_still_is_cut_at_the_applications_limit(autojump_clock: MockClock) -> None:
    stream = StuckStream(pieces=0)
    server = server_over(stream)
    await server.protocol_send(RawData(data=b"x"))
    assert trio.current_time() == pytest.approx(2.0)
    assert stream.closed
    assert [type(event) for event in server.protocol.handled] == [Closed]


async def test_the_deadline_is_for_progress_and_not_for_the_whole(autojump_clock: MockClock) -> None:
    stream = StuckStream(pieces=100)
    server = server_over(stream)
    await server.protocol_send(RawData(data=b"x" * 64 * 1024 * 10))
    assert (stream.taken, stream.closed) == (10, False)
    assert trio.current_time() == pytest.approx(10)


async def test_a_cancelled_write_is_finished_and_never_cut_in_the_middle(autojump_clock: MockClock) -> None:
    stream = StuckStream(pieces=1)
    server = server_over(stream)
    with trio.move_on_after(0.5):
        await server.protocol_send(RawData(data=b"frame"))
    assert (stream.taken, stream.closed) == (1, False)


async def test_a_shutdown_waits_for_a_stuck_write_no_longer_than_its_limit(autojump_clock: MockClock) -> None:
    stream = StuckStream(pieces=0)
    server = server_over(stream)
    with trio.move_on_after(0.1):
        await server.protocol_send(RawData(data=b"frame"))
    assert trio.current_time() == pytest.approx(2.0)
    assert stream.closed


async def test_a_broken_connection_is_reported_as_before(autojump_clock: MockClock) -> None:
    class Broken(StuckStream):
        async def send_all(self, data: Any) -> None:
            raise trio.BrokenResourceError

    server = server_over(Broken(0))
    await server.protocol_send(RawData(data=b"x"))
    assert [type(event) for event in server.protocol.handled] == [Closed]


async def test_other_events_go_to_hypercorns_own_function(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[Any] = []

    async def unguarded(server: TCPServer, event: Any) -> None:
        passed.append(event)

    monkeypatch.setattr(guard, "_unguarded", unguarded)
    server = server_over(StuckStream(0))
    event = Updated(idle=True)
    await server.protocol_send(event)
    assert passed == [event]
