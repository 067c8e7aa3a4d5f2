"""An upstream with policies whose connections play a script, on the virtual clock.

    async with scripted([Step(0.1, 503), OK], retry=Retry()) as upstream:
        await upstream.call()

Each connection serves one request (but for ``KEPT``), so the n-th attempt plays the n-th step.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import httpx
import pytest
import trio

from tests.support.upstream.calls import Caller
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt
from umbel.net.stream import Listener, PlainStream, Stream
from umbel.net.timers import Timer, TimerQueue
from umbel.policy.breaker import BreakerState
from umbel.upstream import Transport
from umbel.upstream.replicas.origin import Origin
from umbel.upstream.replicas.sources import ReplicaSource


class Step(NamedTuple):
    """A request takes ``seconds``, and then ends as ``outcome`` says.

    A status: a response, whose body is the number of the connection (1 for the first). Bytes: what the connection gives
    before it ends; several: a piece each ``seconds``. An exception: there is no connection.
    """

    seconds: float
    outcome: int | bytes | tuple[bytes, ...] | Exception
    headers: Mapping[str, str] = {}
    breaks: bool = False
    """The connection ends by a reset."""
    holds: bool = False
    """The connection does not end by itself."""
    deaf: bool = False
    """The connection takes no byte of a request that does not fit a socket."""
    dumb: bool = False
    """Sending such a request breaks, and nothing is answered."""
    then: Step | None = None
    """What the connection does with its next request, if that is something else."""


HANGS = Step(1000.0, 200)
"""Longer than anybody waits."""
OK = Step(0.1, 200)
RESET = Step(0.0, b"")
"""The connection ends before a byte of a response."""
KEPT = Step(0.0, 200, {"connection": "keep-alive"}, holds=True)
"""The connection serves the next request too."""

Steps = Sequence[Step] | Callable[[Origin], Step]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A response after which the connection is closed."""
    fields = {"connection": "close", "content-length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


class _ClientStream:
    """The client's end of a connection: takes one request, and gives what its step says."""

    def play(self, script: Script, timers: TimerQueue, step: Step, number: int) -> None:
        self._script, self._timers, self._step, self._number = script, timers, step, number
        self.requests = [b""]
        self.closed_at: float | None = None
        self.timer: Timer | None = None
        self._received, self._over = b"", False
        self._listener: Listener | None = None
        self._arrived = trio.Event()
        self._gone = trio.Event()
        self.ended_at: float | None = None

    # Sending

    unsent = b""
    send_error = None

    def send_now(self, data: bytes) -> None:
        if self.closed_at is not None:
            raise trio.ClosedResourceError
        if self._is_whole:
            self.requests.append(b"")
            self._step = self._step.then or self._step
        self.requests[-1] += data
        if self._is_whole:
            outcome = self._step.outcome
            self._pieces = list(outcome) if isinstance(outcome, tuple) else [outcome]
            self._answer_later()

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        self.send_now(data)
        self.listen(listener)

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._step.deaf:
            await self._gone.wait()
        if self._step.dumb:
            raise trio.BrokenResourceError
        self.send_now(data)

    @property
    def _is_whole(self) -> bool:
        head, found, body = self.requests[-1].lower().partition(b"\r\n\r\n")
        if b"transfer-encoding" in head:
            return body.endswith(b"0\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return bool(found) and len(body) >= (0 if length is None else int(length[1]))

    # Receiving

    def _answer_later(self) -> None:
        self.timer = self._timers.add(trio.current_time() + self._step.seconds, self._answer)

    def _answer(self) -> None:
        step, answer = self._step, self._pieces.pop(0)
        if isinstance(answer, int):
            answer = response(answer, b"%d" % self._number, step.headers)
        assert isinstance(answer, bytes)
        self._received += answer
        if self._pieces:
            self._answer_later()
        elif not step.holds:
            self._over = True
        self._arrived.set()
        self._push()

    def reset(self) -> None:
        """Break, whatever is still to come."""
        if self.timer is not None:
            self.timer.cancel()
        self._step = self._step._replace(breaks=True)
        self._over = True
        self._arrived.set()
        self._push()

    def _push(self) -> None:
        """As ``net.stream.PlainStream`` does."""
        listener = self._listener
        if listener is not None and self._received:
            data, self._received = self._received, b""
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None
        if self._over and not self._received and (listener := self._listener) is not None:
            self._listener = None
            listener.on_error(trio.BrokenResourceError()) if self._step.breaks else listener.on_eof()

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        if self._arrived.is_set():
            self._timers.add(trio.current_time(), self._push)

    def unlisten(self) -> None:
        self._listener = None

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._received and not self._over:
            self._arrived = trio.Event()
            await self._arrived.wait()
            if self.closed_at is not None:
                raise trio.ClosedResourceError
        data, self._received = self._received, b""
        if not data and self._step.breaks:
            raise trio.BrokenResourceError
        return data

    # Its end

    def is_quiet(self) -> bool:
        return True

    def close_now(self) -> None:
        if self.closed_at is not None:
            return
        self.closed_at = trio.current_time()
        self._script.in_flight -= 1
        if self.timer is not None:
            self.timer.cancel()
        self._arrived.set()
        self._gone.set()
        if (listener := self._listener) is not None:
            self._listener = None
            listener.on_error(trio.ClosedResourceError())

    def close(self) -> None:
        self.close_now()


class PulledStream(_ClientStream):
    """One that a task waits for."""


class PushedStream(_ClientStream, PlainStream):
    """One that pushes what comes, as a socket does whose reader runs the timers."""

    def __init__(self) -> None:
        """Without a socket."""

    def received_ago(self) -> None:
        """No kernel knows."""


@dataclass
class Made:
    """One connection that was asked for, of one attempt (but for ``KEPT``)."""

    at: float
    host: str
    connect_timeout: float | None
    stream: Any = None
    """None where there was no connection."""

    @property
    def closed_at(self) -> float | None:
        """When it was closed."""
        closed_at: float | None = self.stream.closed_at
        return closed_at

    @property
    def request(self) -> bytes:
        """The last request on it."""
        request: bytes = self.stream.requests[-1]
        return request


class Script:
    """A ``dial`` whose connections play ``steps`` in order, the last one again and again; or what a function says."""

    def __init__(self, timers: TimerQueue, steps: Steps, *, pushing: bool = True, delay: float = 0.0) -> None:
        self._timers = timers
        self._pushing = pushing
        self.delay = delay
        """Seconds of connecting, where that succeeds."""
        self.steps = steps
        self.made: list[Made] = []
        self.in_flight = 0
        """Connections that are being made or are open."""

    async def __call__(self, origin: Origin, timeout: float | None) -> Stream:
        made = Made(trio.current_time(), origin.host, timeout)
        self.made.append(made)
        self.in_flight += 1
        try:
            made.stream = await self._dial(origin, len(self.made))
        except BaseException:
            self.in_flight -= 1
            raise
        return made.stream

    async def _dial(self, origin: Origin, number: int) -> PulledStream | PushedStream:
        step = self.steps(origin) if callable(self.steps) else self.steps[min(number, len(self.steps)) - 1]
        if isinstance(step.outcome, Exception):
            await trio.sleep(step.seconds)
            raise step.outcome
        await trio.sleep(self.delay)
        stream = PushedStream() if self._pushing else PulledStream()
        stream.play(self, self._timers, step, number)
        return stream

    @property
    def starts(self) -> list[float]:
        return [each.at for each in self.made]

    @property
    def working(self) -> int:
        """Requests that are still to be answered, and whose client waits."""
        timers = [made.stream.timer for made in self.made if made.stream is not None]
        return sum(timer is not None and timer.active for timer in timers)


class Scripted(Caller):
    """An upstream that plays a script, and the calls made of it."""

    def __init__(self, transport: Transport, script: Script) -> None:
        super().__init__(transport.client)
        self.transport = transport
        self.script = script

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts of the last call, in the order in which they began."""
        return sorted(self.contexts[-1].attempts, key=lambda each: each.started_at)

    @property
    def causes(self) -> list[str]:
        return [each.cause for each in self.attempts]

    @property
    def kinds(self) -> list[Kind | None]:
        return [each.kind for each in self.attempts]

    async def outcome(self, **options: Any) -> int | Exception:
        """A call's status, or its error."""
        try:
            return (await self.call(**options)).status_code
        except Exception as error:  # noqa: BLE001 - whatever ends the call
            return error

    async def ends_as(self, outcome: int | Exception, **options: Any) -> None:
        """A call must end with this status, or with this very exception."""
        if isinstance(outcome, int):
            assert (await self.call(**options)).status_code == outcome
        else:
            with pytest.raises(type(outcome)) as caught:
                await self.call(**options)
            assert caught.value is outcome

    def stream(self, method: str = "GET", **options: Any) -> Any:
        """A call whose response is received piece by piece."""
        options.setdefault("extensions", {})["stream"] = True
        return self.transport.handle_async_request(httpx.Request(method, "http://any/", **options))

    @property
    def breaker(self) -> tuple[BreakerState, int, int]:
        """The breaker's state, and the attempts and failures in its window."""
        found = self.client.statistics().breaker
        assert found is not None
        return found.state, found.requests, found.failures

    def assert_nothing_left(self) -> None:
        super().assert_nothing_left()
        assert self.script.in_flight == self.client.statistics().pool.idle


class AlwaysLongest(Random):
    """Draws all but the whole: a random wait is as long as it may be."""

    def random(self) -> float:
        return 1.0


@asynccontextmanager
async def scripted(
    steps: Steps,
    urls: Sequence[str] | ReplicaSource = ("http://upstream",),
    *,
    rng: Random | None = None,
    pushing: bool = True,
    delay: float = 0.0,
    dial: type[Script] = Script,
    **options: Any,
) -> AsyncIterator[Scripted]:
    """An upstream that plays ``steps``, inside its block; ``options`` as of ``Transport``. It must leave nothing."""
    timers = TimerQueue()
    script = dial(timers, steps, pushing=pushing, delay=delay)
    # The longest of draws is none where one of several replicas is drawn.
    rng = rng or (AlwaysLongest() if isinstance(urls, Sequence) and len(urls) == 1 else Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        async with Transport(urls, dial=script, rng=rng, **options) as transport:
            upstream = Scripted(transport, script)
            yield upstream
            upstream.assert_nothing_left()
        nursery.cancel_scope.cancel(reason="the test is over")
