"""Floods over HTTP/1.1 on real sockets: the limits of connections, requests in flight, descriptors and memory."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.program import SERVERS, route, running, up
from tests.support.process.processes import PYTHON, started
from tests.support.server.serving import RawClient, connected, fetch
from tests.support.upstream.raw_server import Peer, raw_server, response, silent

SHED_S_MAX = 0.05
GUARD = 10
SERVICE_S = 0.05
"""Seconds that the upstream takes for a request."""


def resident() -> int:
    """Resident bytes of this process, in which the server runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def closed_with_503(client: RawClient) -> None:
    await client.send("GET", "/r")
    reply = await client.reply()
    assert (reply.status, reply["content-type"]) == (503, "application/problem+json")
    assert int(reply["retry-after"]) >= 1
    assert reply["connection"] == "close"
    assert await client.closed_by_server()


@SERVERS
async def test_connections_over_the_limit_get_503_and_are_closed(stock: bool, tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        config = "[server]\nmax_connections = 5\n" + up(upstream) + route()
        async with running(tmp_path, config, stock=stock, keep_alive_timeout=60) as program, AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(connected(program.port)) for _ in range(5)]
            for client in idle:
                assert (await client.request("GET", "/livez")).status == 200
            for _ in range(20):
                with trio.fail_after(SHED_S_MAX * GUARD):
                    async with connected(program.port) as one_too_many:
                        await closed_with_503(one_too_many)
            # Open connections are still served, and after a close another one is accepted.
            assert (await idle[0].request("GET", "/livez")).status == 200
            await idle.pop().stream.aclose()
            with trio.fail_after(5):
                while True:
                    reply = await fetch(program.port, "GET", "/nowhere", [("connection", "close")])
                    if reply.status == 404:
                        break
            for client in idle:
                await client.stream.aclose()
    assert [line for line in program.lines("app") if line["event"] != "log.closed"] == []


@SERVERS
async def test_requests_over_max_in_flight_get_503_within_fifty_milliseconds(stock: bool, tmp_path: Path) -> None:
    async with raw_server(silent) as upstream:
        config = "[server]\nmax_in_flight = 4\n" + up(upstream) + route(keys='deadline = "1h"')
        async with running(tmp_path, config, stock=stock) as program, AsyncExitStack() as stack:
            busy = [await stack.enter_async_context(connected(program.port)) for _ in range(4)]
            for client in busy:
                await client.send("GET", "/r")
            with trio.fail_after(5):
                while program.app.statistics().requests_in_flight < 4:
                    await wait_all_tasks_blocked(0.002)
            async with connected(program.port) as client:
                for _ in range(50):
                    with trio.fail_after(SHED_S_MAX * GUARD):
                        reply = await client.request("GET", "/r")
                    assert (reply.status, reply["content-type"]) == (503, "application/problem+json")
                    assert int(reply["retry-after"]) >= 1
                    assert reply.json["type"] == "urn:umbel:problem:overloaded"
                # When a request in flight ends, the next one on the same connection is admitted.
                await busy.pop().stream.aclose()
                with trio.fail_after(5):
                    while (reply := await client.request("GET", "/nowhere")).status != 404:
                        assert reply.status == 503
            for client in busy:
                await client.stream.aclose()
    shed = [line for line in program.lines("access") if line["http.response.status_code"] == 503]
    assert len(shed) >= 50
    assert {line["kind"] for line in shed} == {"overloaded"}
    assert {line["level"] for line in shed} == {"error"}
    assert len([line for line in program.lines("access") if line["http.response.status_code"] == 499]) == 4


@SERVERS
async def test_throughput_under_a_flood_stays_near_the_maximum(stock: bool, tmp_path: Path) -> None:
    """With three times as many clients as ``max_in_flight``, the successful responses per second stay the same."""

    async def brief(peer: Peer) -> None:
        while await peer.read_head():
            await trio.sleep(SERVICE_S)
            await peer.send(response(b"1"))

    async def goodput(port: int, clients: int) -> int:
        served = 0

        async def ask_again_and_again() -> None:
            nonlocal served
            async with connected(port) as client:
                while True:
                    if (await client.request("GET", "/r")).status == 200:
                        served += 1
                    else:
                        await trio.sleep(SERVICE_S)

        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(ask_again_and_again)
        return served

    async with raw_server(brief) as upstream:
        config = "[server]\nmax_in_flight = 10\n" + up(upstream) + route()
        async with running(tmp_path, config, stock=stock) as program:
            peak = await goodput(program.port, 10)
            await program.settled()
            flooded = await goodput(program.port, 30)
    # 90 % is promised on a machine without other load.
    assert flooded >= 0.5 * peak, f"{flooded} of {peak} a second"


@SERVERS
@pytest.mark.parametrize(("used", "status"), [(0.5, 404), (0.9, 404), (0.98, 503)], ids=["half", "much", "nearly all"])
async def test_near_memory_limit_keep_alive_ends_and_then_requests_get_503(
    used: float, status: int, stock: bool, tmp_path: Path
) -> None:
    limit = int(resident() / used)
    async with raw_server(silent) as upstream:
        config = f'[server]\nmemory_limit = "{limit}B"\n' + up(upstream) + route()
        async with running(tmp_path, config, stock=stock) as program, connected(program.port) as client:
            reply = await client.request("GET", "/nowhere")
            assert reply.status == status
            if used > 0.85:
                assert reply["connection"] == "close"
                assert await client.closed_by_server()
            else:
                assert (await client.request("GET", "/nowhere")).status == 404
                await client.stream.aclose()
            if status == 503:
                assert int(reply["retry-after"]) >= 1


HOARDER = """
import os, trio
from umbel.server import hypercorn_config, serve
hoard = []
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/hoard":
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
    else:
        while hoard:
            os.close(hoard.pop())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
async def main():
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve, app, hypercorn_config(bind=["127.0.0.1:0"]))
        print("serves", address, flush=True)
trio.run(main)
"""


async def test_without_descriptors_accepting_pauses_with_one_record(tmp_path: Path) -> None:
    limited = ("prlimit", "--nofile=200:200", PYTHON, "-c", HOARDER)
    async with started(*limited, cwd=tmp_path) as server:
        port = int((await server.address("serves")).rpartition(":")[2])
        async with connected(port) as inside:
            assert (await inside.request("GET", "/hoard")).status == 200
            async with AsyncExitStack() as stack:
                outside = [await stack.enter_async_context(connected(port)) for _ in range(20)]
                for client in outside:
                    await client.send("GET", "/free")
                # No connection can be accepted now, but open ones are served.
                with trio.move_on_after(0.5) as waited:
                    await outside[0].stream.receive_some()
                assert waited.cancelled_caught
                with trio.fail_after(1):
                    assert (await inside.request("GET", "/free")).status == 200
                with trio.fail_after(5):
                    for client in outside:
                        assert (await client.reply()).status == 200
        assert await server.stop(signal.SIGTERM) == 0
    told = [line for line in server.output.splitlines() if "descriptors" in line or "open files" in line]
    assert len(told) == 1
    assert "Traceback" not in server.output
