"""The control socket with slow clients, on the autojump clock: each is cut in time, and none delays another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from umbel.supervisor.control import control_socket as control_module
from umbel.supervisor.control.control_socket import ANSWER_S, CONNECTIONS_MAX, REQUEST_S, control_socket, serve_control

MockClock = trio.testing.MockClock
NO_MASTER: Any = None
"""Commands that there are not ask nothing of it."""


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[str]:
    with control_socket(str(path)) as sock:
        assert sock is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_control, NO_MASTER, sock)
            yield str(path)
            nursery.cancel_scope.cancel(reason="the test is over")


async def ended_at(stream: trio.SocketStream, pieces: Iterable[bytes] = (), every: float = 1.0) -> float:
    """Send pieces until the server closes the connection; return the seconds."""
    began = trio.current_time()

    async def drip() -> None:
        try:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(every)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with trio.fail_after(1000):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        nursery.cancel_scope.cancel(reason="closed")
    return trio.current_time() - began


async def ask(path: str) -> dict[str, Any]:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"command": "nothing"}\n')
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    return decoded


@pytest.mark.parametrize(
    "pieces", [(), (b"{",), (b'{"command": ', *[b" "] * 1000)], ids=["nothing", "half", "single bytes"]
)
async def test_a_request_that_does_not_come_in_time_closes_the_connection(
    pieces: Iterable[bytes], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "ctl") as path, await trio.open_unix_socket(path) as stream:
        assert await ended_at(stream, pieces) == pytest.approx(REQUEST_S)


async def test_an_answer_that_is_not_read_in_time_closes_the_connection(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def large(master: Any, line: bytes) -> dict[str, Any]:
        return {"trees": "x" * 10_000_000}

    monkeypatch.setattr(control_module, "execute_command", large)
    async with serving(tmp_path / "ctl") as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"{}\n")
        await trio.sleep(ANSWER_S + 1)
        received = 0
        with trio.fail_after(1):
            while data := await stream.receive_some(10**6):
                received += len(data)
        assert received < 10_000_000


async def test_any_number_of_silent_clients_delays_no_other_client(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path / "ctl") as path:
        silent = [await trio.open_unix_socket(path) for _ in range(3 * CONNECTIONS_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        answers = [await ask(path) for _ in range(10)]
        assert trio.current_time() == began
        assert [answer["ok"] for answer in answers] == [False] * 10
        for stream in silent:
            await stream.aclose()


async def test_a_long_command_delays_no_other_command(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(master: Any, line: bytes) -> dict[str, Any]:
        await trio.sleep(100 if b"slow" in line else 0)
        return {"ok": True}

    monkeypatch.setattr(control_module, "execute_command", slow)
    async with serving(tmp_path / "ctl") as path:
        waiting = [await trio.open_unix_socket(path) for _ in range(CONNECTIONS_MAX // 2)]
        for stream in waiting:
            await stream.send_all(b'{"command": "slow"}\n')
        await trio.testing.wait_all_tasks_blocked()
        assert (await ask(path))["ok"]
        assert trio.current_time() == 0
        for stream in waiting:
            await stream.aclose()
