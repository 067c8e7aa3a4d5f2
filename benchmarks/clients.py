"""The clients that ``upstream.py`` compares, each in a process of its own: ``python clients.py NAME PORT``.

Reads lines ``IN_FLIGHT SECONDS`` and writes one line of JSON for each, a ``Sample``, measured in a fork of the process.
Each client may use as many connections as calls are in flight; stock httpx runs with its defaults.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, NoReturn

import trio

Call = Callable[[], Awaitable[object]]
"""One call, its body read."""
Opening = Callable[[str, int], Any]
"""Given a URL and the calls in flight, an async context manager that gives a factory of ``Call``."""

TARGET = "/users/42"
WARM_MAX = 2.0
"""Seconds after which measuring begins, even if not every connection is open yet."""
PATIENCE = 3.0
"""Seconds more to wait for at least one call to end."""
PATIENCE_MAX = 10
"""Seconds after which a measurement is given up, even if the client lets no timer run."""


class Sample(NamedTuple):
    """One measurement. Times are in seconds; None if no call ended."""

    rate: float
    cpu: float | None
    p50: float | None
    p99: float | None


class Meter:
    """The calls that ended after all callers were warm."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.warm = 0

    async def repeat(self, call: Call) -> None:
        await call()
        self.warm += 1
        clock = time.perf_counter
        while True:
            began = clock()
            await call()
            self.latencies.append(clock() - began)

    async def measure(self, sleep: Callable[[float], Awaitable[None]], in_flight: int, seconds: float) -> Sample:
        began = time.perf_counter()
        while self.warm < in_flight and time.perf_counter() - began < WARM_MAX:
            await sleep(0.02)
        self.latencies.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - wall) < seconds or not self.latencies:
            if elapsed > seconds + PATIENCE:
                break
            await sleep(max(0.02, seconds - elapsed))
        cpu = time.process_time() - cpu
        found = sorted(self.latencies)
        if not found:
            return Sample(0.0, None, None, None)
        count = len(found)
        return Sample(count / elapsed, cpu / count, found[count // 2], found[min(count - 1, count * 99 // 100)])


def say(sample: Sample) -> NoReturn:
    """Print the sample and exit at once: some clients take minutes to close a thousand connections."""
    print(json.dumps(sample), flush=True)
    os._exit(0)


async def on_trio(opening: Opening, url: str, in_flight: int, seconds: float) -> NoReturn:
    meter = Meter()
    async with opening(url, in_flight) as make, trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(meter.repeat, make())
        say(await meter.measure(trio.sleep, in_flight, seconds))


async def on_asyncio(opening: Opening, url: str, in_flight: int, seconds: float) -> NoReturn:
    meter = Meter()
    async with opening(url, in_flight) as make:
        _tasks = [asyncio.create_task(meter.repeat(make())) for _ in range(in_flight)]
        say(await meter.measure(asyncio.sleep, in_flight, seconds))


# The clients


@asynccontextmanager
async def _stock_httpx(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import httpx

    # No timeouts anywhere: at 1,000 in flight it would time out instead of being slow.
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
        yield lambda: lambda: client.get(url)


@asynccontextmanager
async def _roomy_httpx(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import httpx

    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(timeout=None, trust_env=False, limits=limits) as client:
        yield lambda: lambda: client.get(url)


@asynccontextmanager
async def _httpx2(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import httpx2

    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx2.AsyncClient(timeout=None, trust_env=False, limits=limits) as client:
        yield lambda: lambda: client.get(url)


@asynccontextmanager
async def _aiohttp(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=in_flight), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def call() -> None:
            async with session.get(url) as response:
                await response.read()

        yield lambda: call


@asynccontextmanager
async def _ours_client(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import httpx

    from umbel.upstream import Pool

    pool = Pool(max_connections=in_flight, max_idle=in_flight)
    async with httpx.AsyncClient(transport=pool, timeout=None, trust_env=False) as client:
        yield lambda: lambda: client.get(url)


@asynccontextmanager
async def _ours_policies(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    import httpx

    from umbel.upstream import BreakerRules, Retry, Transport

    transport = Transport([url.rpartition(TARGET)[0]], retry=Retry(), breaker=BreakerRules(), max_concurrency=in_flight)
    async with httpx.AsyncClient(transport=transport, timeout=None, trust_env=False) as client:
        yield lambda: lambda: client.get(url)


@asynccontextmanager
async def _ours_call(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    """A call as a composition makes it, without a socket."""
    from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner
    from umbel.upstream import Transport

    target, fields = TARGET.encode(), ((b"accept", b"accept", b"*/*"), (b"user-agent", b"user-agent", b"bench"))
    async with Transport([url.rpartition(TARGET)[0]], max_concurrency=in_flight) as transport:
        client = transport.client

        async def call() -> None:
            owner = SingleCallOwner()
            context = CallContext(owner, "user", "users")
            ended = await owner.perform(client.new_call(PreparedRequest("GET", target, fields), context))
            if ended.error is not None:
                raise ended.error

        yield lambda: call


@asynccontextmanager
async def _bare(url: str, in_flight: int) -> AsyncIterator[Callable[[], Call]]:
    """llhttp on plain sockets: one connection for each caller, without checks, pool and error handling."""
    import httptools

    authority = url.split("/")[2]
    host, _, port = authority.partition(":")
    lines = (
        f"GET {TARGET} HTTP/1.1",
        f"Host: {authority}",
        "Accept: */*",
        "Accept-Encoding: gzip",
        "User-Agent: bench",
    )
    request = "\r\n".join((*lines, "", "")).encode("ascii")
    socks: list[socket.socket] = []

    def make() -> Call:
        sock = socket.create_connection((host, int(port)))
        sock.setblocking(False)
        socks.append(sock)

        async def call() -> _Answer:
            sock.send(request)
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete:
                await trio.lowlevel.wait_readable(sock)
                parser.feed_data(sock.recv(65536))
            return answer

        return call

    yield make
    for sock in socks:
        trio.lowlevel.notify_closing(sock)
        sock.close()


class _Answer:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.complete = True


def _with_uvloop(main: Any) -> None:
    import uvloop

    uvloop.run(main)


def _trio_runner(opening: Opening) -> Callable[[str, int, float], object]:
    return lambda url, in_flight, seconds: trio.run(on_trio, opening, url, in_flight, seconds)


class Client(NamedTuple):
    """One row of the table: a client at one number of calls in flight."""

    needs: str
    """The module to import before anything is measured."""
    run: Callable[[str, int, float], object]
    """Measures, says the sample, and ends the process."""


CLIENTS = {
    "httpx, stock": Client("httpx", _trio_runner(_stock_httpx)),
    "httpx, roomy": Client("httpx", _trio_runner(_roomy_httpx)),
    "httpx2": Client("httpx2", _trio_runner(_httpx2)),
    "aiohttp on asyncio": Client("aiohttp", lambda *given: asyncio.run(on_asyncio(_aiohttp, *given))),
    "aiohttp on uvloop": Client("aiohttp", lambda *given: _with_uvloop(on_asyncio(_aiohttp, *given))),
    "ours, AsyncClient": Client("umbel.upstream", _trio_runner(_ours_client)),
    "ours, AsyncClient, policies": Client("umbel.upstream", _trio_runner(_ours_policies)),
    "ours, a call": Client("umbel.upstream", _trio_runner(_ours_call)),
    "bare llhttp loop": Client("httptools", _trio_runner(_bare)),
}


def main() -> None:
    client, url = CLIENTS[sys.argv[1]], f"http://127.0.0.1:{sys.argv[2]}{TARGET}"
    importlib.import_module(client.needs)
    for line in sys.stdin:
        in_flight, seconds = line.split()
        if child := os.fork():
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
                print(json.dumps(Sample(0.0, None, None, None)), flush=True)
            elif status:
                print("null", flush=True)  # It has said why on stderr.
        else:
            signal.alarm(PATIENCE_MAX)
            client.run(url, int(in_flight), float(seconds))


if __name__ == "__main__":
    main()
