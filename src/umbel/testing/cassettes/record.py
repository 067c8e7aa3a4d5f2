"""Recording: a gateway's upstreams are called as they are, and what they answer is written to a cassette.

Theory
------
The gateway's pool dials, the recording makes the real connection (name, address, TLS), and gives the pool one end of a
connection in memory. A relay task for each connection passes requests and responses on, one after the other, and
notes when the head and each part of the body came. So the gateway behaves as without a recording, and a failure to
connect is the same failure for it.

*The end of a connection.* If the upstream closes a kept connection, the gateway's end is closed at once. If the gateway
closes its end (it has given an attempt up), the relay is cancelled, the real connection is closed, and the exchange is
written as a ``timeout``.

*Bounds.* A relay keeps at most ``EXCHANGE_BYTES_MAX`` and ``PARTS_MAX`` parts of a response; ``QUEUE_MAX`` exchanges
wait for the file. An exchange beyond a bound is passed on and counted as lost. Nothing waits for the file.

Not recorded: WebSockets, interim responses, trailers, health checks.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from ...config.schema.access.credential_names import logs_of
from ...config.schema.sections import Config
from ...core.call import StepTimeouts
from ...core.diagnostics.redact import Redactor
from ...core.errors import UpstreamError
from ...core.failure_kinds import Kind
from ...core.regular_file import open_regular
from ...http1.response_head import Head
from ...net.memory_stream import MemoryReader, MemoryStream, memory_stream_pair
from ...upstream.errors import ConnectTimedOut
from ...upstream.from_config import build_pool
from ...upstream.network import Network
from ...upstream.pool.connection import Connection
from ...upstream.pool.connection_state import State
from ...upstream.pool.dial import Dial
from ...upstream.pool.pool import Pool
from ...upstream.pool.request_head import encode_httpx_request
from ...upstream.replicas.origin import Origin
from ..received import UpstreamRequest
from ..upstream_connection import UNPASSABLE, UpstreamConnection
from .exchange import VERSION, Exchange, Header, Part, encode, shown_fields, shown_target

EXCHANGE_BYTES_MAX = 16 * 2**20
"""The bound on the bytes of one response that are kept for the cassette."""
PARTS_MAX = 20_000
"""The bound on the parts of one response."""
QUEUE_MAX = 1000
"""The bound on exchanges that wait for the file."""
FILE_MODE = 0o600


class Tape:
    """Writes exchanges to a cassette, in a task of its own (``run``).

    Args:
        path: the file; it must not exist.
        header: its first line.

    Raises:
        OSError: the file exists, or cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self._file = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        self._send, self._receive = trio.open_memory_channel[Exchange](QUEUE_MAX)
        self._header = header
        self.bodies = header.bodies
        """Whether bodies are written."""
        self.written = self.lost = 0
        """Exchanges that are on the cassette, and those beyond a bound."""

    def record(self, exchange: Exchange) -> None:
        """Have ``exchange`` written; never waits."""
        try:
            self._send.send_nowait(exchange)
        except trio.WouldBlock:
            self.lost += 1

    def close(self) -> None:
        """Take no more exchanges; ``run`` ends when it has written those that wait."""
        self._send.close()

    async def run(self) -> None:
        """Write until ``close``, then close the file. Cancelled, it leaves out what waits.

        Raises:
            OSError: the file cannot be written.
        """
        try:
            await trio.to_thread.run_sync(_write, self._file, encode(self._header))
            async for exchange in self._receive:
                await trio.to_thread.run_sync(_write, self._file, encode(exchange))
                self.written += 1
        finally:
            os.close(self._file)


def _write(file: int, data: bytes) -> None:
    """Write all of ``data``. Blocks."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.write(file, view[written:])


def header_of(config: Config, *, bodies: bool) -> Header:
    """The header of a cassette of a gateway with ``config``."""
    return Header(VERSION, bodies, tuple(logs_of(config).redact))


@asynccontextmanager
async def recorded_network(config: Config, tape: Tape) -> AsyncIterator[Network]:
    """Context manager: a network that makes real connections to the upstreams and records on ``tape``.

    Raises:
        UpstreamConfigError: a TLS file of an upstream cannot be used.
    """
    async with AsyncExitStack() as stack:
        pools = {
            name: await stack.enter_async_context(build_pool(upstream)) for name, upstream in config.upstreams.items()
        }
        async with trio.open_nursery() as relays:
            recording = _Recording(pools, tape, Redactor(logs_of(config).redact), relays)
            yield Network(recording.reader, recording.dial_for, lambda _: random.Random())
            relays.cancel_scope.cancel(reason="the recording is over")


class _Recording:
    """What the relays of a recording share."""

    def __init__(self, pools: Mapping[str, Pool], tape: Tape, redactor: Redactor, relays: trio.Nursery) -> None:
        self.reader = MemoryReader()
        self._pools = pools
        self._tape = tape
        self._redactor = redactor
        self._relays = relays
        self._began = trio.current_time()

    def dial_for(self, name: str) -> Dial:
        """The function that connects to the upstream ``name``."""
        return partial(self._dial, name)

    async def _dial(self, name: str, origin: Origin, timeout: float | None) -> MemoryStream:
        pool, began = self._pools[name], trio.current_time()
        try:
            real = await pool.open(origin, timeout)
        except UpstreamError as error:
            failure = "connect-timeout" if isinstance(error, ConnectTimedOut) else str(error.kind)
            took = round(trio.current_time() - began, 6)
            self._tape.record(Exchange(name, round(began - self._began, 6), failure=failure, ended_at=took))
            raise
        ours, theirs = memory_stream_pair(self.reader)
        self._relays.start_soon(self._relay, name, origin, pool, real, theirs, name=f"recorded connection to {name}")
        return ours

    async def _relay(self, name: str, origin: Origin, pool: Pool, real: Connection, stream: MemoryStream) -> None:
        """Pass requests and responses on until either side closes."""
        try:
            with trio.CancelScope() as scope:
                stream.on_end = lambda _broken: scope.cancel(reason="the gateway has closed the connection")
                if real.pushing is not None:
                    real.pushing.on_end = lambda _broken: stream.close() if real.state is State.IDLE else None
                connection = UpstreamConnection(stream)
                while (request := await connection.next_request(name, origin)) is not None:
                    await _Relayed(self, request, pool, real, connection).run()
                    if real.state is State.CLOSED:
                        break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The gateway has closed the connection, or a failure has.
        except UNPASSABLE:
            self._tape.lost += 1
            stream.reset_on_close()
        finally:
            stream.close()
            real.close_now()
            pool.connection_lost(origin, real)

    def record(self, relayed: _Relayed, failure: str = "") -> None:
        """Put an exchange on the tape, unless it is beyond a bound."""
        if relayed.is_beyond:
            self._tape.lost += 1
            return
        request, head = relayed.request, relayed.head
        fields = () if head is None else tuple((name, value) for name, _, value in head.fields)
        self._tape.record(
            Exchange(
                request.upstream,
                round(request.at - self._began, 6),
                request.method,
                shown_target(request.url.raw_path.decode("latin-1"), self._redactor),
                0 if head is None else head.status,
                relayed.head_at,
                shown_fields(fields, self._redactor, bodies=self._tape.bodies),
                tuple(relayed.parts),
                failure,
                relayed.now,
            )
        )

    @property
    def has_bodies(self) -> bool:
        """Whether bodies are recorded."""
        return self._tape.bodies


class _Relayed:
    """One request that is passed on."""

    def __init__(
        self,
        recording: _Recording,
        request: UpstreamRequest,
        pool: Pool,
        real: Connection,
        connection: UpstreamConnection,
    ) -> None:
        self._recording = recording
        self._pool = pool
        self._real = real
        self._connection = connection
        self._size = 0
        self.request = request
        self.head: Head | None = None
        self.head_at = 0.0
        self.parts: list[Part] = []
        self.is_beyond = False
        """Whether the response is beyond a bound of what is kept."""

    @property
    def now(self) -> float:
        """Seconds since the request arrived."""
        return round(trio.current_time() - self.request.at, 6)

    async def run(self) -> None:
        """Pass the request on, and its response back, and record both.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: either side has closed the connection.
        """
        try:
            await self._pass_on()
        except UpstreamError as error:
            known = (Kind.MALFORMED, Kind.TOO_BIG)
            self._recording.record(self, str(error.kind if error.kind in known else Kind.RESET))
            raise trio.ClosedResourceError from error
        except UNPASSABLE:
            raise  # The relay counts it.
        except BaseException:
            self._recording.record(self, "timeout")
            raise
        self._recording.record(self)

    async def _pass_on(self) -> None:
        real, connection = self._real, self._connection
        head = self.head = await real.start(encode_httpx_request(self.request), self._pool.limits, StepTimeouts())
        self.head_at = self.now
        fields = [(name, value) for name, _, value in head.fields]
        length = None if head.chunked else head.length
        has_body = await connection.begin(self.request, head.status, fields, length, close=not head.keep_alive)
        if has_body:
            # What came together with the head has its time.
            await self._pass_part(real.take(), self.head_at)
            while not real.ended:
                await self._pass_part(await real.read(), self.now)
            await self._pass_part(real.take(), self.now)
        if real.unsettled:
            await real.settle()
            real.raise_failure()
        await connection.end()

    async def _pass_part(self, data: bytes, at: float) -> None:
        if not data:
            return
        self._size += len(data)
        if self._size > EXCHANGE_BYTES_MAX or len(self.parts) >= PARTS_MAX:
            self.is_beyond = True
            self.parts.clear()
        if not self.is_beyond:
            self.parts.append(Part.of(at, data, bodies=self._recording.has_bodies))
        await self._connection.send_data(data)
