"""Cancels of the admin side at each checkpoint: no thread, no socket and no descriptor is left."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.process.admin import ask_admin
from tests.unit.admin.test_connections import Source
from tests.unit.observe.process.test_process_side import TOKEN, Reports, View, living, settings
from umbel.admin.side import AdminSide
from umbel.observe.process import process_side
from umbel.observe.process.process_side import process_admin


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_cancel_at_any_checkpoint_ends_the_thread_and_removes_the_socket(tmp_path: Path) -> None:
    reports = Reports()
    before = descriptors()

    async def operation() -> None:
        async with process_admin(View(), settings(tmp_path, bind="127.0.0.1:0", token=TOKEN), reports):
            assert (await ask_admin(tmp_path / "admin.sock", "GET", "/status"))[0] == 200

    def check() -> None:
        assert living() == []
        assert process_side._running == {}
        # A thread that was just opening the socket when it was abandoned removes it; there is no event of it.
        until = time.monotonic() + 10
        while ((tmp_path / "admin.sock").exists() or descriptors() != before) and time.monotonic() < until:
            time.sleep(0.001)
        assert not (tmp_path / "admin.sock").exists()
        assert descriptors() == before

    # At least: the addresses, the thread's start, the client's connection, request and response, the thread's end.
    assert await for_every_checkpoint(operation, check) >= 8
    assert reports == []


async def test_a_cancel_at_any_checkpoint_of_a_side_closes_its_sockets(tmp_path: Path) -> None:
    reports = Reports()
    before = descriptors()

    async def operation() -> None:
        side = AdminSide(settings(tmp_path, metrics="127.0.0.1:0"), reports)
        try:
            side.open_addresses()
            async with trio.open_nursery() as nursery:
                await nursery.start(side.run, Source())
                assert (await ask_admin(tmp_path / "admin.sock", "GET", "/status"))[0] == 200
                nursery.cancel_scope.cancel(reason="the operation is over")
        finally:
            side.close()

    async def check() -> None:
        # A thread that was abandoned while it opened the socket closes it a moment later.
        with trio.fail_after(10):
            while descriptors() != before or (tmp_path / "admin.sock").exists():
                await trio.lowlevel.checkpoint()

    assert await for_every_checkpoint(operation, check, any_task=True) >= 8
    assert reports == []
