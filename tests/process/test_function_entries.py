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
from tests.support.rawserver import answering, raw_server, response
from tests.support.serving import connected

FURTHER_CALL_MAX = 158
REQUEST_MAX = 850
"""Of a request of one call. Both are where the code stands; the goals are 65 and 480."""
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
    body = response(b'{"v":1,"name":"x"}', b"Content-Type: application/json")
    with trio.fail_after(50):
        async with raw_server(answering(body)) as upstream:
            one = await entries_per_request(tmp_path, int(upstream), 1)
            eleven = await entries_per_request(tmp_path, int(upstream), 11)
    further = (eleven - one) / 10
    print(f"{one:.0f} function entries for a request of one call, {further:.0f} for each further one")
    assert one <= REQUEST_MAX
    assert further <= FURTHER_CALL_MAX
