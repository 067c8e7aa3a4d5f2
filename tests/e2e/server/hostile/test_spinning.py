"""Applications that only call ``receive`` or ``send``, in every state of a request, do not block the event loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import umbel.server
from tests.support.server.http_channels import PROTOCOLS
from tests.support.server.repeated_asgi_calls import HTTP, LIFESPAN, WEBSOCKET, Case, Spinner, asking
from tests.support.server.serving import fetch, serving
from umbel.server import hypercorn_config, serve
from umbel.server.handler import handler_of
from umbel.server.state import ServerState
from umbel.server.websocket.session import WebSocketSession

OVER = pytest.mark.parametrize("protocol", PROTOCOLS)
SERVER = Path(umbel.server.__file__).parent

COVERED = {
    ("asgi.py", "self.receive", "self.send"): HTTP,
    ("session.py", "self.receive", "self.send"): WEBSOCKET,
    ("lifespan.py", "self.receive", "self.send"): LIFESPAN,
}
"""The places where the server calls an application, with the callables that it passes, and the cases for them."""


def calls_of_applications() -> Iterator[tuple[str, str, str]]:
    """Each call in the source of a name ``app`` with three arguments: ASGI's scope, receive and send."""
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and len(node.args) == 3
                and ast.unparse(node.func).split(".")[-1].endswith("app")
            ):
                yield path.name, ast.unparse(node.args[1]), ast.unparse(node.args[2])


def test_the_cases_cover_each_place_where_an_application_is_called() -> None:
    assert set(calls_of_applications()) == set(COVERED)


def callables() -> Iterator[tuple[str, str]]:
    """Each method of the server's classes that is ASGI's ``receive`` or ``send``, with its first statement."""
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_one = isinstance(node, ast.AsyncFunctionDef) and (ast.get_docstring(node) or "").startswith("ASGI's ``")
            if is_one and len(node.body) > 2:  # A method of a Protocol has no body.
                yield f"{path.name}: {node.name}", ast.unparse(node.body[1])


def test_each_receive_and_send_of_the_server_counts_its_calls() -> None:
    found = dict(callables())
    assert len(found) == 2 * len(COVERED)
    assert set(found.values()) <= {"await self.count_call()", "self._calls += 1"}, found


async def held(protocol: str, case: Case, *, websocket: bool = False) -> Spinner:
    """Run the endless calls of the case while a second client makes three requests."""
    spinner = Spinner(case)
    state = ServerState(spinner, hypercorn_config(bind=["127.0.0.1:0"]), handle=handler_of(spinner))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            state.config.graceful_timeout = 1.0

            async def run(*, task_status: Any) -> None:
                await serve(spinner, state.config, server=state, shutdown_trigger=stop.wait, task_status=task_status)

            (address,) = await nursery.start(run)
            port = int(address.rpartition(":")[2])
            async with asking(protocol, port, case, websocket=websocket) as act:
                await spinner.spins.wait()
                await act()
                if case.client == "drains":
                    for connection in tuple(state.open):
                        if isinstance(connection, WebSocketSession):  # Not the second client's connection.
                            connection.drain(trio.current_time())
                for _ in range(3):
                    assert (await fetch(port, "GET", "/other")).body == b"hello"
                spinner.was_served = True
            stop.set()
    return spinner


@OVER
@pytest.mark.parametrize("case", HTTP, ids=str)
async def test_endless_calls_during_a_request_do_not_block_the_loop(protocol: str, case: Case) -> None:
    spinner = await held(protocol, case)
    assert not spinner.held_the_worker


@OVER
@pytest.mark.parametrize("case", WEBSOCKET, ids=str)
async def test_endless_calls_during_a_websocket_do_not_block_the_loop(protocol: str, case: Case) -> None:
    spinner = await held(protocol, case, websocket=True)
    assert not spinner.held_the_worker


@pytest.mark.parametrize("case", LIFESPAN, ids=str)
async def test_endless_calls_during_a_lifespan_do_not_block_the_loop(case: Case) -> None:
    spinner = Spinner(case)
    async with serving(spinner) as port:
        with trio.fail_after(30):
            await spinner.spins.wait()
            for _ in range(3):
                assert (await fetch(port, "GET", "/other")).body == b"hello"
            spinner.was_served = True
    assert not spinner.held_the_worker
