"""``gateway``: the whole gateway in one task tree of a test, on trio's virtual clock and without sockets.

Theory
------
**What is real.** The client's request goes through httpx into a connection in memory, is read by the gateway's HTTP/1.1
server, answered by the application, and its calls go through the upstream clients with all policies, the pool, and
connections in memory to the scripted upstreams. Only the connections are replaced (``upstream/network.py``), and with
them what belongs to the system: names, TLS, files of logs, exported traces, the admin side.

**Tasks**, from the outermost nursery::

    the test's task
    ├─ scripted upstreams: a task per connection, which may raise an error of the test
    ├─ the application: lifespan, runtime (upstream clients, the reader of all connections in memory)
    ├─ the server: its timers
    ├─ the server's connections
    └─ the client's pool

**Time.** While a thread works, for example one that decodes a large body, the clock does not jump
(``virtual_time.py``).

**The end.** First the requests are examined, then the client is closed, whose connections end with it. What the
application holds then, and did not hold after its start, is a leak. A copy of a request (``mirror``) may outlast the
request, so it is given ``COPY_SECONDS``. If the block raises, nothing is examined, and the exception is raised as it
is.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from ..config.loading.load import load, load_given
from ..core.errors import UmbelError
from ..gateway.app import Umbel
from ..gateway.checks import CHECKS
from ..net.exception_groups import raise_unwrapped
from ..net.memory_stream import MemoryReader, MemoryStream, memory_stream_pair
from ..server.handler import handler_of
from ..server.peer import Peer
from ..server.process.settings import hypercorn_config
from ..server.serve_socket import serve_stream
from ..server.state import ServerState
from ..upstream.network import Network
from ..upstream.replicas.origin import Origin
from .answers import Handler
from .client import GatewayClient, TimelineRecorder
from .leaks import LeakError, calls_left, copies_in_flight, requests_left, tasks_left, tasks_of
from .upstreams import ScriptedUpstreams
from .virtual_time import threads_hold_the_clock, virtual_clock

Configuration = str | os.PathLike[str] | Mapping[str, Any] | Umbel

START_SECONDS = 60
"""Bound on the application's startup, and on its shutdown, in seconds of the virtual clock."""
COPY_SECONDS = 60.0
"""Seconds of the virtual clock for which the end waits for copies of requests."""


@asynccontextmanager
async def gateway(
    config: Configuration,
    upstreams: Mapping[str, Handler] = {},
    *,
    leaks: bool = True,
    health_checks: bool = False,
    seed: int = 0,
    base_url: str = "http://localhost",
    peer: str = "127.0.0.1",
) -> AsyncIterator[GatewayClient]:
    """Run a gateway in memory for the block, and give a client for it. No socket is used.

    Args:
        config: the path of a configuration file, TOML as text (a text with a line break), the data of a configuration,
            or an ``Umbel`` application that does not run.
        upstreams: what answers the calls, by name of the upstream: a scripted answer, a function that takes an
            ``UpstreamRequest`` and returns an answer or an ``httpx.Response`` (sync or async), or a mapping of paths
            (``"/users/42"``, or with a method ``"POST /users"``) to these.
        leaks: check at the end that nothing is left of the requests.
        health_checks: whether the upstreams' health checks are made; they take turns of the scripts, as calls do.
        seed: the seed of all randomness of the upstream clients (pauses before retries, choice of replicas).
        base_url: the URL to which paths of the client are relative. With ``https`` the gateway takes the connection
            for one with TLS.
        peer: the client's address.

    The clock of the trio run must be a ``trio.testing.MockClock``: ``trio.run(test, clock=MockClock(
    autojump_threshold=0))``, the fixture ``umbel_gateway``, or pytest-trio's ``autojump_clock``.

    Raises:
        ConfigError: the configuration cannot be used.
        TypeError: ``config`` or ``upstreams``, or a member of it, is of another type.
        ValueError: ``upstreams`` has a name that the configuration lacks, or a script without an answer.
        UmbelError: not in trio, or its clock is not a ``MockClock``; or the application runs already.
        LeakError: something is left at the end.
        UnscriptedRequestError: a call was made for which ``upstreams`` has no answer.
        Exception: what the block, or a function of ``upstreams``, raises.

    A cancel closes everything and propagates.
    """
    clock = virtual_clock()
    app = _application(config)
    _check_names(app, upstreams)
    reader, recorder = MemoryReader(), TimelineRecorder(app.given_recorder)
    try:
        async with trio.open_nursery() as upstream_tasks:
            scripted = ScriptedUpstreams(upstreams, reader, upstream_tasks)
            network = _network(scripted, reader, seed, health_checks=health_checks)
            with threads_hold_the_clock(clock), _replaced(app, network, recorder):
                task = trio.lowlevel.current_task()
                outer = len(task.child_nurseries)
                async with _serving(app, reader, peer) as (server, dial):
                    own = task.child_nurseries[outer:]
                    client = GatewayClient(app, dial, recorder, scripted, base_url)
                    async with _checked(app, server, own, client) if leaks else client:
                        yield client
            upstream_tasks.cancel_scope.cancel(reason="the test is over")
    except BaseException as error:
        # An exception of the block or of an upstream's function is raised as it is.
        raise_unwrapped(error)
        raise


def _application(config: Configuration) -> Umbel:
    """The application of a configuration; see ``gateway``. Blocks on the files of a configuration."""
    if isinstance(config, Umbel):
        if config.current_runtime is not None:
            raise UmbelError("the application runs already; a gateway under test starts it by itself")
        return config
    if not isinstance(config, str | os.PathLike | Mapping):
        raise TypeError(
            f"{config!r} is no configuration: give the path of a file, TOML as text, a mapping, or an Umbel application"
        )
    if isinstance(config, Mapping) or (isinstance(config, str) and "\n" in config):
        loaded = load_given(config, checks=CHECKS)
    else:
        loaded = load(config, checks=CHECKS)
    return Umbel("umbel", loaded, static_folder=None)


def _check_names(app: Umbel, upstreams: Mapping[str, Handler]) -> None:
    if not isinstance(upstreams, Mapping):
        raise TypeError(f'upstreams maps names to answers, such as {{"users": json({{}})}}, and {upstreams!r} does not')
    known = app.gateway_config.upstreams
    for name in upstreams:
        if name not in known:
            raise ValueError(f"the configuration has no upstream {name!r}; it has {', '.join(known) or 'none'}")
        if name in app.given_transports:
            raise ValueError(f"the application has a transport for the upstream {name!r}; remove it, or the script")


def _network(scripted: ScriptedUpstreams, reader: MemoryReader, seed: int, *, health_checks: bool) -> Network:
    # A generator for each upstream: trio runs the tasks of one moment in any order.
    return Network(reader, scripted.dial_for, lambda name: random.Random(f"{seed} {name}"), health_checks)


@contextmanager
def _replaced(app: Umbel, network: Network, recorder: TimelineRecorder) -> Iterator[None]:
    """Context manager: have ``app`` use ``network`` and ``recorder`` when it is started."""
    before = app.given_network, app.given_recorder
    app.given_network, app.given_recorder = network, recorder
    try:
        yield
    finally:
        app.given_network, app.given_recorder = before


@asynccontextmanager
async def _serving(app: Umbel, reader: MemoryReader, peer: str) -> AsyncIterator[tuple[ServerState, Any]]:
    """Start the application and a server for it; give the server's state and the function that connects to it."""
    async with app.test_app_class(app, startup_timeout=START_SECONDS, shutdown_timeout=START_SECONDS):
        server = ServerState(app, hypercorn_config(), handle=handler_of(app))
        async with trio.open_nursery() as background:
            await background.start(server.run)
            async with trio.open_nursery() as connections:

                async def dial(origin: Origin, timeout: float | None) -> MemoryStream:
                    await trio.lowlevel.checkpoint()
                    ours, theirs = memory_stream_pair(reader)
                    port = 49152 + server.statistics().connections_total % 16384
                    ends = Peer((peer, port), (origin.host, origin.port), origin.scheme == "https")
                    connections.start_soon(serve_stream, server, lambda: (theirs, ends))
                    return ours

                yield server, dial
                connections.cancel_scope.cancel(reason="the test is over")
            background.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def _checked(
    app: Umbel, server: ServerState, own: Sequence[trio.Nursery], client: GatewayClient
) -> AsyncIterator[None]:
    """Open the client for the block, and check after it that nothing is left of the requests.

    Args:
        app, server: what is examined.
        own: the nurseries of application and server.
        client: is closed before calls, connections and tasks are examined.

    Raises:
        LeakError: something is left.
    """
    await wait_all_tasks_blocked()
    before = set(tasks_of(own))
    async with client:
        yield
        await wait_all_tasks_blocked()
        left = [*requests_left(app, server)]
    if not left:
        with trio.move_on_after(COPY_SECONDS):
            while copies_in_flight(app):  # noqa: ASYNC110 - a copy sets no event, and virtual time costs nothing
                await trio.sleep(0.1)
        await wait_all_tasks_blocked()
        left += calls_left(app)
        left += tasks_left(task for task in tasks_of(own) if task not in before)
    if left:
        raise LeakError(left)
