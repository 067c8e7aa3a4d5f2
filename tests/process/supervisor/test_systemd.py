"""The master with a simulated systemd: notify socket, watchdog, and socket activation."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.process.processes import PYTHON, started
from tests.support.process.supervised import TEST_TIMEOUT_S, Supervised, supervised, write_app


class Systemd:
    """The receiver of the messages to systemd."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = trio.socket.from_stdlib_socket(sock)

    async def hears(self, *parts: str) -> dict[str, str]:
        """Return the next message that contains all parts."""
        with trio.fail_after(TEST_TIMEOUT_S):
            while True:
                message = (await self._sock.recv(4096)).decode()
                if all(part in message.split("\n") for part in parts):
                    return dict(line.partition("=")[::2] for line in message.split("\n"))


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[tuple[Systemd, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = str(tmp_path / "notify.sock")
        sock.bind(path)
        sock.setblocking(False)
        yield Systemd(sock), path


async def test_systemd_is_notified_of_start_reload_watchdog_pings_and_stop(
    tmp_path: Path, notify: tuple[Systemd, str]
) -> None:
    systemd, path = notify
    env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    async with supervised(tmp_path, workers=1, env=env) as master:
        ready = await systemd.hears("READY=1")
        assert (ready["MAINPID"], ready["STATUS"]) == (str(master.pid), "1 of 1 workers ready")
        await systemd.hears("WATCHDOG=1")
        master.signal(signal.SIGHUP)
        assert int((await systemd.hears("RELOADING=1"))["MONOTONIC_USEC"]) > 0
        await systemd.hears("READY=1")
        master.signal(signal.SIGTERM)
        assert int((await systemd.hears("STOPPING=1"))["EXTEND_TIMEOUT_USEC"]) > 20_000_000


async def test_watchdog_pings_end_while_no_worker_sends_heartbeats(tmp_path: Path, notify: tuple[Systemd, str]) -> None:
    systemd, path = notify
    env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "100000"}
    async with (
        supervised(tmp_path, "--hang-timeout", "1s", workers=1, env=env) as master,
        trio.open_nursery() as nursery,
    ):
        await systemd.hears("WATCHDOG=1")
        nursery.start_soon(master.get, "/block")
        assert (await systemd.hears("STATUS=0 of 1 workers ready"))["STATUS"]
        # No ping comes until there is a new worker, several periods of 50 ms later. The new worker sends a
        # heartbeat as soon as it runs, and its readiness is reported a moment later.
        assert await _pings_until(systemd, "1 of 1") <= 2


async def _pings_until(systemd: Systemd, status: str) -> int:
    """Count the watchdog pings before a message with this status."""
    pings = 0
    while True:
        message = (await systemd._sock.recv(4096)).decode()
        if f"STATUS={status}" in message:
            return pings
        pings += "WATCHDOG=1" in message


async def test_sockets_that_systemd_has_opened_are_served(tmp_path: Path) -> None:
    write_app(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # systemd passes descriptor 3 and the pid of the process that it is meant for.
        script = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.environ['LISTEN_FDS'] = '1'; os.execv(sys.executable, [sys.executable, '-m', 'umbel', 'serve', "
            "'served:app', '-w', '1'])"
        )
        os.set_inheritable(listener.fileno(), True)
        async with started(sys.executable, "-c", script, cwd=tmp_path, pass_fds=[listener.fileno()]) as child:
            master = Supervised(child, tmp_path)
            await master.begun()
            assert master.port == listener.getsockname()[1]
            assert (await master.get()).startswith(b"HTTP/1.1 200")
            assert await child.stop(signal.SIGTERM) == 0


async def test_without_a_master_passed_sockets_are_reported_as_unused(tmp_path: Path) -> None:
    write_app(tmp_path)
    command = f"LISTEN_FDS=1 LISTEN_PID=$$ exec {PYTHON} -m umbel serve served:app --bind 127.0.0.1:0 3</dev/null"
    async with started("sh", "-c", command, cwd=tmp_path) as child:
        assert "are not used; only a master" in await child.line("warning")
