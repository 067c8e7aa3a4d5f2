"""The sample services as HTTP servers on loopback, each with its own latency; services can be made slow or failing."""

from __future__ import annotations

import math
import random
import socket
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from trio_util import move_on_when

from .services import NO_FAULTS, SERVICES, Faults, SampleService

SLOW_S = 2.0
"""The seconds that ``--slow`` adds to each response of a service."""

_LATENCY_SPREAD = 0.4  # Sigma of the lognormal: one response in twenty takes about twice the median.

Urls = Mapping[str, tuple[str, ...]]
"""The base URLs of each service, by its name."""


class SampleUpstream:
    """One replica of a sample service, as an ASGI application on trio.

    Args:
        service: the service.
        slow: whether each response takes ``SLOW_S`` longer.
        fail: whether each response has the status 500.
        chance: the source of the latencies and of the faults.
        faults: how often the service is slow or fails besides.
    """

    def __init__(
        self,
        service: SampleService,
        *,
        slow: bool,
        fail: bool,
        chance: random.Random,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self._service = service
        self._slow = slow
        self._fail = fail
        self._chance = chance
        self._faults = faults

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Respond to one request, or end early if the client disconnects."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            # Only the delay can be ended: the server also sends http.disconnect while it sends the end of a response.
            async with move_on_when(_disconnected, receive) as gone:
                await trio.sleep(self._latency())
            if not gone.cancelled_caught:
                await self._answer(scope["raw_path"], scope["query_string"], send)

    async def _answer(self, path: bytes, query: bytes, send: ASGISendCallable) -> None:
        if self._fail:
            status, value = 500, {"error": "this service was started with --fail"}
        elif self._chance.random() < self._faults.failing:
            status, value = 503, {"error": "this service fails now and then during --traffic"}
        else:
            status, value = self._service.answer(path.decode(), dict(parse_qsl(query.decode())))
        body = msgspec.json.encode(value)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _latency(self) -> float:
        usual = self._chance.lognormvariate(math.log(self._service.median_ms / 1000), _LATENCY_SPREAD)
        late = self._faults.slow_s if self._chance.random() < self._faults.slow else 0.0
        return usual + late + (SLOW_S if self._slow else 0.0)


@asynccontextmanager
async def sample_upstreams(
    *,
    slow: Collection[str] = (),
    fail: Collection[str] = (),
    faults: bool = False,
    usual_ports: bool = False,
    seed: int = 1,
) -> AsyncGenerator[Urls, None]:
    """Context manager: serve all sample services on loopback, one server for each replica; gives their base URLs.

    Args:
        slow: the names of services that take ``SLOW_S`` seconds longer.
        fail: the names of services that respond with 500.
        faults: whether each service has its own ``faults``.
        usual_ports: whether to use the ports of the sample configuration. For a port that is in use, and without
            ``usual_ports``, any free one is taken.
        seed: the seed of the latencies and of the faults.
    """
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        urls: dict[str, tuple[str, ...]] = {}
        for name, service in SERVICES.items():
            own_faults = service.faults if faults else NO_FAULTS
            app = SampleUpstream(service, slow=name in slow, fail=name in fail, chance=chance, faults=own_faults)
            urls[name] = tuple([await _start(nursery, app, port if usual_ports else 0) for port in service.ports])
        yield urls
        nursery.cancel_scope.cancel(reason="the demo is over")


async def _start(nursery: trio.Nursery, app: Any, port: int) -> str:
    config = HypercornConfig()
    config.bind = [f"fd://{_bound(port).detach()}"]
    config.errorlog = None
    config.include_server_header = False
    [url] = await nursery.start(serve, app, config)
    return str(url)


def _bound(port: int) -> socket.socket:
    """Return a socket that is bound to ``port`` on loopback, or to a free port if ``port`` is in use."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.bind(("127.0.0.1", 0))
    return bound


async def _lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _disconnected(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
