"""Exceptions of an application end its request and nothing else, whatever their class; Ctrl-C ends the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from quart import websocket

from tests.support.logs.records import Records
from tests.support.server.http_channels import PROTOCOLS, ask, opened, rest
from tests.support.server.serving import fetch, serving
from tests.support.server.stray_cancel import stray_cancel
from tests.support.server.ws_client import AcceptConnection, ws_client
from umbel.gateway.app import Umbel
from umbel.server import hypercorn_config, serve
from umbel.server.handler import handler_of
from umbel.server.limits.fairness import CALLS_AFTER_END_MAX
from umbel.server.state import ServerState


class OwnError(BaseException):
    """An exception of the application that is no ``Exception``."""


class MuteError(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise KeyboardInterrupt("there is no text")


class HiddenError(Exception):
    """An exception whose attributes raise."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class BrokenGroupError(BaseExceptionGroup[BaseException]):
    """A group that cannot be split."""

    def derive(self, excs: Any) -> Any:
        raise ValueError("it cannot be derived")


def deep_group() -> BaseException:
    error: BaseException = OwnError()
    for _ in range(5000):
        error = BaseExceptionGroup("deeper", [error])
    return error


async def made(kind: Callable[[], BaseException]) -> BaseException:
    return kind()


RAISED: dict[str, Callable[[], Any]] = {
    "ValueError": lambda: made(ValueError),
    "KeyboardInterrupt": lambda: made(KeyboardInterrupt),
    "GeneratorExit": lambda: made(GeneratorExit),
    "SystemExit": lambda: made(SystemExit),
    "asyncio.CancelledError": lambda: made(asyncio.CancelledError),
    "a BaseException": lambda: made(OwnError),
    "a group": lambda: made(lambda: BaseExceptionGroup("several", [OwnError(), KeyboardInterrupt()])),
    "a nested group": lambda: made(
        lambda: BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [GeneratorExit()]), ValueError()])
    ),
    "a cancel that is not ours": stray_cancel,
    "one without a text": lambda: made(MuteError),
}
OVER = pytest.mark.parametrize("protocol", PROTOCOLS)
KINDS = pytest.mark.parametrize("kind", RAISED)
HIDDEN: dict[str, Callable[[], Any]] = {
    "one that hides all it has": lambda: made(HiddenError),
    "a group that cannot be split": lambda: made(lambda: BrokenGroupError("own", [OwnError(), KeyboardInterrupt()])),
    "a group too deep to be split": lambda: made(deep_group),
}
"""Exceptions that Quart or trio's scopes cannot handle."""
RAW_KINDS = pytest.mark.parametrize("kind", [*RAISED, *HIDDEN])


@dataclass
class Raiser:
    """Raise for ``/raise`` (before the head), for ``/break`` (in the content), and in a WebSocket."""

    kind: str
    recorder: Records = field(default_factory=Records)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("it has none")
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        elif scope["path"] != "/raise":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello", "more_body": scope["path"] == "/break"})
        if scope["path"] == "/hello":
            return
        await trio.lowlevel.checkpoint()
        raise await (RAISED | HIDDEN)[self.kind]()


@OVER
@RAW_KINDS
async def test_an_exception_before_the_head_gives_500_and_one_record(protocol: str, kind: str) -> None:
    app = Raiser(kind)
    with trio.fail_after(10):
        async with serving(app) as port:
            assert (await ask(protocol, port, "GET", "/raise"))[0] == 500
            assert (await ask(protocol, port, "GET", "/hello"))[0] == 200
    assert [note.event for note in app.recorder.logged] == ["request.crashed"]


@OVER
@RAW_KINDS
async def test_an_exception_during_the_content_cuts_it_off_with_one_record(protocol: str, kind: str) -> None:
    app = Raiser(kind)
    with trio.fail_after(10):
        async with serving(app) as port:
            with pytest.raises((EOFError, h11.RemoteProtocolError)):
                await ask(protocol, port, "GET", "/break")
            assert (await ask(protocol, port, "GET", "/hello"))[0] == 200
    assert [note.event for note in app.recorder.logged] == ["request.crashed"]


@RAW_KINDS
async def test_an_exception_in_a_websocket_closes_it_with_1011(kind: str) -> None:
    app = Raiser(kind)
    with trio.fail_after(10):
        async with serving(app) as port:
            async with ws_client(port) as client:
                assert isinstance(await client.open(), AcceptConnection)
                assert await client.ended() == 1011
            assert (await fetch(port, "GET", "/hello")).status == 200
    assert [note.event for note in app.recorder.logged] == ["websocket.crashed"]


@KINDS
async def test_an_exception_in_a_view_gives_500_with_one_record_of_each_kind(kind: str) -> None:
    records = Records()
    app = Umbel("crashing", static_folder=None, recorder=records)

    @app.get("/raise")
    async def view() -> str:
        raise await RAISED[kind]()

    @app.websocket("/ws")
    async def socket() -> None:
        await websocket.accept()
        raise await RAISED[kind]()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    with trio.fail_after(10):
        async with serving(app) as port:
            reply = await fetch(port, "GET", "/raise")
            assert (reply.status, reply["content-type"]) == (500, "application/problem+json")
            async with ws_client(port) as client:
                await client.open()
                assert await client.ended() in (1011, 1000)  # 1000 if Quart catches the exception.
            assert (await fetch(port, "GET", "/hello")).status == 200
    assert [(record.request.path, record.status) for record in records.requests] == [
        ("/raise", 500),
        ("/ws", 101),
        ("/hello", 200),
    ]
    leaves = 2 if "group" in kind else 1
    assert len([note for note in records.logged if note.request and note.request.path == "/raise"]) == leaves
    assert len(records.logged) == 2 * leaves


@OVER
@KINDS
async def test_an_exception_in_a_streamed_view_cuts_it_off_with_one_record(protocol: str, kind: str) -> None:
    records = Records()
    app = Umbel("crashing", static_folder=None, recorder=records)

    @app.get("/stream")
    async def stream() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise await RAISED[kind]()

        return parts(), 200

    with trio.fail_after(10):
        async with serving(app) as port:
            with pytest.raises((EOFError, h11.RemoteProtocolError)):
                await ask(protocol, port, "GET", "/stream")
    leaves = 2 if "group" in kind else 1
    assert [note.event for note in records.logged] == ["request.crashed"] * leaves
    assert len(records.requests) == 1


@OVER
@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 999, "200", None])
async def test_an_invalid_status_gives_500_and_one_record(protocol: str, status: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("it has none")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    records = Records()
    app.recorder = records  # type: ignore[attr-defined]  # as applications carry it
    with trio.fail_after(10):
        async with serving(app) as port:
            assert (await ask(protocol, port, "GET", "/"))[0] == 500
    assert [note.event for note in records.logged] == ["request.crashed"]


async def test_a_crash_beside_a_cancel_is_recorded_and_keeps_the_connection() -> None:
    recorder = Records()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("it has none")
        if scope["path"] == "/hello":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})
            return
        try:
            begun.set()
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("both", [cancelled, ValueError("beside")]) from None

    begun = trio.Event()
    app.recorder = recorder  # type: ignore[attr-defined]  # as an application with records has it
    with trio.fail_after(10):
        async with serving(app) as port:
            for protocol in PROTOCOLS:
                begun = trio.Event()
                async with opened(protocol, port) as channel:
                    await channel.request("GET", "/wait")
                    await begun.wait()
                    await channel.abandon()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    if protocol == "HTTP/2":
                        await channel.request("GET", "/hello")
                        assert (await channel.answer())[0] == 200
    assert [note.event for note in recorder.logged] == ["request.abandoned"] * 2
    assert {note.level for note in recorder.logged} == {"info"}


async def test_an_application_that_calls_on_after_its_end_is_cancelled() -> None:
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("it has none")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
        calls = 0
        try:
            while True:
                await receive()
                calls += 1
        finally:
            ended.append(calls)

    recorder = Records()
    app.recorder = recorder  # type: ignore[attr-defined]  # as above
    config = hypercorn_config(bind=["127.0.0.1:0"])
    config.graceful_timeout = 1.0
    state, stop = ServerState(app, config, handle=handler_of(app)), trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            run = partial(serve, app, config, server=state, shutdown_trigger=stop.wait)
            (address,) = await nursery.start(run)
            for protocol in PROTOCOLS:
                assert (await ask(protocol, int(address.rpartition(":")[2]), "GET", "/"))[2] == b"hello"
            while len(ended) < len(PROTOCOLS):
                await trio.testing.wait_all_tasks_blocked(0.01)
            stop.set()
    assert ended == [CALLS_AFTER_END_MAX - 1] * 2
    assert state.statistics().endless == 2
    assert [note.event for note in recorder.logged] == ["application.endless"] * 2


@OVER
@pytest.mark.parametrize("status", [200, 204, 304])
async def test_endless_content_of_a_response_without_content_is_bounded(protocol: str, status: int) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("it has none")
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-own", b"1")]})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        except OSError as error:
            ended.append(str(error))
            raise

    recorder = Records()
    app.recorder = recorder  # type: ignore[attr-defined]  # as above
    # END_STREAM is sent at the bound, and not with the next frames of the connection.
    with trio.fail_after(10):
        async with serving(app, keep_alive_timeout=60) as port, opened(protocol, port) as channel:
            await channel.request("HEAD" if status == 200 else "GET", "/")
            got, headers = await channel.answer()
            assert (got, headers["x-own"], await rest(channel)) == (status, "1", b"")
            while not ended:
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(ended) == 1
    assert recorder.events == []


def test_ctrl_c_in_an_application_ends_the_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, trio\n"
        "from functools import partial\n"
        "from umbel.server import hypercorn_config, serve\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan': raise NotImplementedError\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(10**7): pass\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        config = hypercorn_config(bind=['127.0.0.1:0'])\n"
        "        run = partial(serve, app, config, shutdown_trigger=trio.sleep_forever)\n"
        "        (address,) = await nursery.start(run)\n"
        "        stream = await trio.open_tcp_stream('127.0.0.1', int(address.rpartition(':')[2]))\n"
        "        await stream.send_all(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n"
        "        await trio.sleep(20)\n"
        "trio.run(main)\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert b"KeyboardInterrupt" in ended.stderr
