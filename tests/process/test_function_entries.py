"""How many functions a request enters, Python's and C's: a bound on what later work may add to the way of a request.

The count does not depend on how busy the machine is, but for how many answers come in one turn. It is taken in a served
process by cProfile: one client, one request after the other, kept connections, defaults on, the records included. The
difference between a route of eleven calls and one of one call, divided by ten, is the cost of a further call.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.support.configs import write
from tests.support.processes import started
from tests.support.serving import connected

FURTHER_CALL_MAX = 65
REQUEST_MAX = 480
"""Of a request of one call."""
WARM_UP, COUNTED = 30, 200

SERVE = """
import cProfile, os, pathlib, pstats, runpy, signal
profile = cProfile.Profile()
def begin(*_):
    profile.enable()
def end(*_):
    profile.disable()
    pathlib.Path("entries").write_text(str(pstats.Stats(profile).total_calls))
    os._exit(0)
signal.signal(signal.SIGRTMIN, begin)
signal.signal(signal.SIGRTMIN + 1, end)
runpy.run_module("umbel", run_name="__main__")
"""

UPSTREAM = """
import socket, threading
ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 18\\r\\n\\r\\n{"v":1,"name":"x"}'
def serve(conn):
    data = b""
    while got := conn.recv(65536):
        data += got
        while (end := data.find(b"\\r\\n\\r\\n")) >= 0:
            data = data[end + 4 :]
            conn.sendall(ANSWER)
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""A process of its own, so that its answers do not wait for the client's turn in the test's loop."""


async def entries_per_request(directory: Path, upstream: int, calls: int) -> float:
    lines = "".join(f'calls.c{call} = {{ upstream = "u", path = "/x" }}\n' for call in range(calls))
    write(directory, f'[upstreams.u]\nurls = ["http://127.0.0.1:{upstream}"]\n[[routes]]\npath = "/n"\n{lines}')
    command = (sys.executable, "-c", SERVE, "serve", "--bind", "127.0.0.1:0")
    async with started(*command, cwd=directory) as server:
        port = int((await server.address()).rpartition(":")[2])
        async with connected(port) as client:
            for number in range(WARM_UP + COUNTED):
                if number == WARM_UP:
                    server.send(signal.SIGRTMIN)
                assert (await client.request("GET", "/n")).status == 200
        server.send(signal.SIGRTMIN + 1)
        await server.end()
    return int(await trio.Path(directory / "entries").read_text()) / COUNTED


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bounds are counts of Python 3.11")
async def test_a_request_enters_no_more_functions_than_it_may(tmp_path: Path) -> None:
    with trio.fail_after(50):
        async with started(sys.executable, "-c", UPSTREAM, cwd=tmp_path) as upstream:
            port = int((await upstream.address()).rpartition(":")[2])
            one = await entries_per_request(tmp_path, port, 1)
            # Answers that come in more turns count more: of several runs the least says what the code needs.
            eleven = min([await entries_per_request(tmp_path, port, 11) for _ in range(3)])
            upstream.send(signal.SIGTERM)
            await upstream.end()
    further = (eleven - one) / 10
    print(f"{one:.0f} function entries for a request of one call, {further:.0f} for each further one")
    assert one <= REQUEST_MAX
    assert further <= FURTHER_CALL_MAX
