"""Coalescing over sockets: two users' requests are two calls, one user's two requests are one call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import write
from tests.support.gateway.program import route, up
from tests.support.server.serving import Reply, fetch, serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.gateway.app import Umbel
from umbel.upstream import Client

TRUSTING = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'

CALLS = {
    "a template": 'headers = { x-forwarded-user = "{headers.x_forwarded_user}" }',
    "a forwarded field": 'forward_headers = ["x-forwarded-user"]',
    "a template of another field": 'headers = { x-forwarded-email = "{headers.x_forwarded_user}" }',
}


class Users:
    """An upstream that answers with the user that the request names, once ``release`` is set."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.release = trio.Event()

    async def serve(self, peer: Peer) -> None:
        while head := await peer.read_head():
            self.heads.append(head)
            await self.release.wait()
            user = re.search(rb"x-forwarded-(?:user|email): (\w+)", head.lower())
            await peer.send(response(b'"%b"' % (user[1] if user else b"nobody")))


async def ask_both(directory: Path, users: Users, call: str, names: tuple[str, str], waiting: int) -> list[Reply]:
    """Ask for two users at once; the upstream answers when ``waiting`` calls have come to it."""
    async with raw_server(users.serve) as upstream:
        config = TRUSTING + up(upstream, "coalesce = true") + route(call=call)
        app = Umbel.from_file(write(directory, config))
        async with serving(app, keep_alive_timeout=0.5) as port:
            return await ask_at(app, port, users, names, waiting)


async def ask_at(app: Umbel, port: int, users: Users, names: tuple[str, str], waiting: int) -> list[Reply]:
    replies: dict[int, Reply] = {}

    async def ask(number: int, name: str) -> None:
        fields = [("x-forwarded-user", name), ("x-forwarded-for", f"192.0.2.{number}"), ("x-request-id", f"r{number}")]
        replies[number] = await fetch(port, "GET", "/r", fields)

    assert app.current_runtime is not None
    client = app.current_runtime.callers["up"]
    assert isinstance(client, Client)
    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            nursery.start_soon(ask, number, name)
        with trio.move_on_after(5):
            while True:
                if client.statistics().coalesce.waiting == len(names) and len(users.heads) >= waiting:
                    break
                await wait_all_tasks_blocked(0.005)
        users.release.set()
    return [replies[number] for number in sorted(replies)]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_two_users_are_two_calls_and_each_gets_its_own_answer(call: str, tmp_path: Path) -> None:
    users = Users()
    replies = await ask_both(tmp_path, users, call, ("alice", "bob"), 2)
    assert [reply.json["part"] for reply in replies] == ["alice", "bob"]
    assert len(users.heads) == 2


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_two_requests_of_one_user_are_one_call_that_names_no_client(call: str, tmp_path: Path) -> None:
    users = Users()
    replies = await ask_both(tmp_path, users, call, ("alice", "alice"), 1)
    assert [reply.json["part"] for reply in replies] == ["alice", "alice"]
    (head,) = users.heads
    assert b"192.0.2." not in head
    assert b"x-forwarded-for" not in head.lower()
