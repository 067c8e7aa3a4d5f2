"""Hundreds of clients that leave at random times: afterwards nothing of their requests is left except the records.

``make soak`` runs more rounds.
"""

from __future__ import annotations

import gc
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.program import Program, running
from tests.support.server.serving import RawClient, connected
from tests.support.soak import SOAK
from tests.support.upstream.raw_server import Peer, open_sockets, raw_server, response

ROUNDS = 10 if SOAK else 1
KEEP_ALIVE_S = 5 if SOAK else 1.5
"""The server's timeout for a request head; generous, because all clients run in one event loop and may be slow."""
AT_ONCE = 50
"""Concurrent clients."""
SLOTS = 20
"""The limit on concurrent calls of each upstream."""

_CALLS = """
[routes.calls.profile]
upstream = "users"
path = "/users/{{id}}"
PROFILE
[routes.calls.orders]
upstream = "orders"
path = "/orders{{?id}}"
optional = true
[routes.calls.items]
upstream = "catalog"
path = "/items/{{item}}"
each = "orders[].sku"
limit = 4
optional = true
[routes.calls.offers]
upstream = "orders"
path = "/for/{{profile.segment}}"
optional = true
default = []
"""
CONFIG = f"""
[defaults.upstream]
max_concurrency = {{slots}}
max_queue = 10000
[upstreams.users]
urls = ["http://127.0.0.1:{{0}}"]
[upstreams.orders]
urls = ["http://127.0.0.1:{{1}}"]
timeout = "300ms"
[upstreams.catalog]
urls = ["http://127.0.0.1:{{2}}", "http://127.0.0.1:{{3}}"]
timeout = "300ms"
ejection = false
[[routes]]
path = "/dashboard/<id>"
{_CALLS.replace("PROFILE", "")}
[[routes]]
path = "/search/<id>"
{_CALLS.replace("PROFILE", 'json = "body"')}
"""
CALLS = {"profile", "orders", "items", "offers"}


class Services:
    """The upstreams, with random latency and some faults; they count their requests in flight."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.in_flight = 0
        self.answered = 0
        self.cut = 0
        """The number of requests whose connection was closed before the response."""
        self.heard: set[str] = set()
        """The ids of the inbound requests, from X-Request-Id."""

    async def idle(self) -> None:
        """Wait until no request is in flight; the upstreams notice a closed connection a moment later."""
        with trio.fail_after(5):
            while self.in_flight:
                await wait_all_tasks_blocked(0.002)

    async def handler(self, peer: Peer) -> None:
        while request := (await peer.read_request())[0]:
            self.in_flight += 1
            self.heard.add(request.lower().split(b"x-request-id: ")[1].split(b"\r\n")[0].decode())
            try:
                if not await self._answer(peer, request.split(b" ")[1].decode()):
                    return
            finally:
                self.in_flight -= 1

    async def _answer(self, peer: Peer, target: str) -> bool:
        """Answer in two pieces; return False if the connection has ended instead."""
        rng = self.rng
        # The profile never fails, because it is the only required call.
        fault = rng.random() if not target.startswith("/users/") else 1.0
        if await self._leaves_within(peer, 60.0 if fault < 0.01 else rng.expovariate(1 / 0.02)):
            return False
        if fault < 0.03:
            peer.reset()
            return False
        answer = self._right(target)
        if fault < 0.05:
            answer = response(b"no", status=b"500 Internal Server Error")
        elif fault < 0.07:
            answer = response(b"<html>")
        await peer.send(answer[: len(answer) // 2])
        if await self._leaves_within(peer, rng.expovariate(1 / 0.001)):
            return False
        await peer.send(answer[len(answer) // 2 :])
        self.answered += 1
        return True

    async def _leaves_within(self, peer: Peer, seconds: float) -> bool:
        with trio.move_on_after(seconds) as scope:
            await peer.closed()
        if not scope.cancelled_caught:
            self.cut += 1
        return not scope.cancelled_caught

    def _right(self, target: str) -> bytes:
        rng = self.rng
        said: Any = {"name": target}
        if target.startswith("/users/"):
            said = {"id": target, "segment": rng.choice(["garden", "kitchen"])}
        elif target.startswith("/orders"):
            said = [{"sku": f"sku-{rng.randrange(5)}"} for _ in range(rng.randrange(8))]
        elif target.startswith("/for/"):
            said = ["x" * rng.randrange(20_000)]
        return response(json.dumps(said).encode())


class Churn:
    """The clients. Each request has a number of its own in its path, so that its record can be found."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port = port
        self.rng = rng
        self.number = 0
        self.began: set[str] = set()
        """The paths with at least one byte of a response; each of these requests must have a record."""
        self.served: set[str] = set()
        """The paths with a complete response."""

    async def round(self, clients: int) -> None:
        """Run ``clients`` clients, at most AT_ONCE concurrently, each with a random behaviour."""
        ways = (self.leave_early, self.leave_in_the_body, self.leave_soon, self.leave_soon, self.read_some, self.stay)
        limit = trio.CapacityLimiter(AT_ONCE)

        async def come() -> None:
            async with limit:
                await self.come(self.rng.choice(ways))

        await all_of([come] * clients)

    async def come(self, behave: Callable[[RawClient], Awaitable[None]]) -> None:
        """Connect, run one of the behaviours below, and close the connection with a FIN or an RST."""
        try:
            async with connected(self.port) as client:
                await behave(client)
                if self.rng.random() < 0.5:
                    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except trio.BrokenResourceError:
            # A timeout of the server may end the connection first, unless the client waits for its response.
            assert behave != self.stay

    def request(self, *, body: bool = False) -> tuple[str, bytes]:
        """Make the path and the head of a new request, which accepts a random media type."""
        self.number += 1
        path = f"/{'search' if body else 'dashboard'}/{self.number}"
        form = self.rng.choice(["*/*", "application/x-ndjson", "text/event-stream"])
        lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: gateway.test", f"Accept: {form}"]
        if body:
            lines += ["Content-Type: application/json", "Content-Length: 1000"]
        return path, "\r\n".join([*lines, "", ""]).encode()

    async def leave_early(self, client: RawClient) -> None:
        """Leave before the request head is complete, or immediately after it."""
        _, head = self.request()
        await client.stream.send_all(head[: self.rng.randrange(1, len(head) + 1)])

    async def leave_in_the_body(self, client: RawClient) -> None:
        """Leave before the request body is complete."""
        _, head = self.request(body=True)
        await client.stream.send_all(head + b'"' + b"x" * self.rng.randrange(900))
        await trio.sleep(self.rng.random() * 0.02)

    async def leave_soon(self, client: RawClient) -> None:
        """Leave while the calls are in flight, or without reading the response."""
        _, head = self.request()
        await client.stream.send_all(head)
        await trio.sleep(self.rng.expovariate(1 / 0.01))

    async def read_some(self, client: RawClient) -> None:
        """Leave after some bytes of the response, or at its end."""
        path, head = self.request()
        await client.stream.send_all(head)
        left = self.rng.randrange(1, 5_000)
        while left > 0 and (data := await client.stream.receive_some(left)):
            self.began.add(path)
            left -= len(data)

    async def stay(self, client: RawClient) -> None:
        """Wait for the complete responses to one or two requests."""
        for _ in range(self.rng.choice([1, 2])):
            path, head = self.request()
            await client.stream.send_all(head)
            reply = await client.reply()
            assert reply.status == 200
            assert b"garden" in reply.body or b"kitchen" in reply.body
            self.began.add(path)
            self.served.add(path)


async def all_of(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)


@pytest.mark.timeout(1200 if SOAK else 60)
@pytest.mark.parametrize(
    ("stock", "clients"), [(False, 500), (True, 500 if SOAK else 100)], ids=["our serve", "stock hypercorn"]
)
async def test_clients_that_leave_at_random_leave_nothing_but_their_records(
    stock: bool, clients: int, tmp_path: Path
) -> None:
    sockets = open_sockets()
    services = Services(random.Random("services"))
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(raw_server(services.handler)) for _ in range(4)]
        config = CONFIG.format(*map(int, ports), slots=SLOTS)
        async with running(tmp_path, config, stock=stock, keep_alive_timeout=KEEP_ALIVE_S) as program:
            churn = Churn(program.port, random.Random("clients"))
            objects: list[int] = []
            for _ in range(ROUNDS):
                await churn.round(clients)
                await program.settled()
                await services.idle()
                # Every bulkhead slot is free: as many concurrent clients as there are slots are served.
                await all_of([partial(churn.come, churn.stay)] * SLOTS)
                await program.settled()
                for port in ports:
                    port.connections.clear()
                gc.collect()
                objects.append(len(gc.get_objects()))
            total = program.app.statistics().requests_total
    assert services.answered > clients * ROUNDS
    assert services.cut > clients * ROUNDS / 10
    gone = [line for line in program.lines("calls") if line.get("kind") in ("client-gone", "timeout")]
    assert len(gone) >= services.cut
    # The number of objects varies, for example with idle connections, but it does not grow from round to round.
    assert min(objects[-3:]) < max(objects[:5]) + 1000, objects
    assert_records(program, churn, total)
    assert services.heard <= {line["request_id"] for line in program.lines("access")}
    assert open_sockets() == sockets


def assert_records(program: Program, churn: Churn, total: int) -> None:
    """Assert one access record for each request, and one record for each call of each composition."""
    ended = [line for line in program.lines("access") if line["event"] == "request.end"]
    access = {line["url.path"]: line for line in ended}
    assert len(access) == len(ended) == total
    assert len({line["request_id"] for line in access.values()}) == total
    assert churn.began <= access.keys()
    for path in churn.served:
        assert access[path]["http.response.status_code"] == 200
        assert access[path].get("kind") is None
    assert {line.get("kind") for line in access.values()} == {None, "client-gone"}
    calls: dict[str, list[str]] = {line["request_id"]: [] for line in access.values()}
    for line in program.lines("calls"):
        calls[line["request_id"]].append(line["call"])
    for line in access.values():
        names = calls[line["request_id"]]
        assert len(names) == len(set(names))
        # A client that leaves before the composition begins has no calls; every other request has all calls.
        assert set(names) == CALLS or (not names and line["http.response.status_code"] == 499)
    assert {line["event"] for line in program.lines("app")} == {"log.closed"}
