"""An upstream with policies, whose connections follow a script, on the virtual clock.

    async with scripted([Step(0.1, 503), OK], retry=Retry()) as upstream:
        await upstream.call()

Each connection serves one request (except with ``KEPT``), so that attempt number n gets step number n.
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
    """What happens to one request: after ``seconds`` it ends with ``outcome``.

    The outcome is a status (a response whose body is the number of the connection, from 1), bytes (sent before the
    connection ends), a tuple of bytes (one piece every ``seconds``), or an exception (connecting fails with it).
    """

    seconds: float
    outcome: int | bytes | tuple[bytes, ...] | Exception
    headers: Mapping[str, str] = {}
    breaks: bool = False
    """Whether the connection ends with a reset."""
    holds: bool = False
    """Whether the connection stays open after the outcome."""
    deaf: bool = False
    """Whether a send of a large request waits until the connection is closed."""
    dumb: bool = False
    """Whether a send of a large request raises BrokenResourceError."""
    then: Step | None = None
    """The step of the connection's next request; None: this one."""


HANGS = Step(1000.0, 200)
"""A step that takes longer than any test waits."""
OK = Step(0.1, 200)
RESET = Step(0.0, b"")
"""The connection ends before a byte of a response."""
KEPT = Step(0.0, 200, {"connection": "keep-alive"}, holds=True)
"""A response after which the connection persists."""

Steps = Sequence[Step] | Callable[[Origin], Step]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A response after which the connection is closed."""
    fields = {"connection": "close", "content-length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def in_parts(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[bytes, bytes]:
    """A response whose last byte comes apart, so that a stream call is not over with its head."""
    whole = response(status, body, headers)
    return whole[:-1], whole[-1:]


class _ClientStream:
    """The client's end of a connection, which answers the request according to its step."""

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
        _ClientStream.send_now(self, data)
        self.listen(listener)

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._step.deaf:
            await self._gone.wait()
        if self._step.dumb:
            raise trio.BrokenResourceError
        _ClientStream.send_now(self, data)

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
        """Reset the connection now."""
        if self.timer is not None:
            self.timer.cancel()
        self._step = self._step._replace(breaks=True)
        self._over = True
        self._arrived.set()
        self._push()

    def _push(self) -> None:
        """Call the listener as ``net.stream.PlainStream`` does."""
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

    async def pass_turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_ready(self, limit: int = 0) -> bytes | None:
        return await self.receive_some() if self._received or self._over else None

    async def receive_some(self, limit: int = 0) -> bytes:
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

    # Closing

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
    """A stream from which a task receives."""


class PushedStream(_ClientStream, PlainStream):
    """A stream that pushes to a listener, as a socket does whose reader runs the timers."""

    def __init__(self) -> None:
        """Do nothing: the stream has no socket."""

    def send_now(self, data: bytes) -> bool:
        """Send as ``send_all`` does."""
        if self._step.dumb:
            raise trio.BrokenResourceError
        if self._step.deaf:
            self.unsent = data
            return False
        super().send_now(data)
        return True

    async def drained(self) -> None:
        if self._step.deaf:
            await self._gone.wait()
            raise trio.ClosedResourceError

    def received_ago(self) -> None:
        """Return None: there is no kernel that has the time."""


@dataclass
class Made:
    """One dialled connection, of one attempt (except with ``KEPT``)."""

    at: float
    host: str
    connect_timeout: float | None
    stream: Any = None
    """The connection; None if dialling failed."""

    @property
    def closed_at(self) -> float | None:
        """The time at which the client closed the connection; None while it is open."""
        closed_at: float | None = self.stream.closed_at
        return closed_at

    @property
    def request(self) -> bytes:
        """The last request on the connection."""
        request: bytes = self.stream.requests[-1]
        return request


class Script:
    """A ``dial`` whose connections get ``steps`` in order, then the last one; or the step that a function returns."""

    def __init__(self, timers: TimerQueue, steps: Steps, *, pushing: bool = True, delay: float = 0.0) -> None:
        self._timers = timers
        self._pushing = pushing
        self.delay = delay
        """The seconds that a successful connection attempt takes."""
        self.steps = steps
        self.made: list[Made] = []
        self.in_flight = 0
        """The number of connections that are being dialled or open."""

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
        """The number of requests whose outcome is still to come."""
        timers = [made.stream.timer for made in self.made if made.stream is not None]
        return sum(timer is not None and timer.active for timer in timers)


class Scripted(Caller):
    """A scripted upstream and its calls."""

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
        """Make a call; return its status or its error."""
        try:
            return (await self.call(**options)).status_code
        except Exception as error:  # noqa: BLE001 - whatever ends the call
            return error

    async def ends_as(self, outcome: int | Exception, **options: Any) -> None:
        """Make a call and assert that it ends with this status, or with this exception object."""
        if isinstance(outcome, int):
            assert (await self.call(**options)).status_code == outcome
        else:
            with pytest.raises(type(outcome)) as caught:
                await self.call(**options)
            assert caught.value is outcome

    def stream(self, method: str = "GET", **options: Any) -> Any:
        """Make a call whose response is streamed."""
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
    """A generator whose draws are the maximum, so that a random wait has its full length."""

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
    """Open an upstream that follows ``steps``. After the block nothing of a call may be left.

    Args:
        steps: see ``Script``.
        urls: the URLs of the replicas, or their source.
        rng: the randomness of the policies; by default each random wait has its full length.
        pushing: whether streams push to a listener; False: a task receives.
        delay: the seconds that connecting takes.
        dial: the class of the script.
        options: those of ``Transport``.
    """
    timers = TimerQueue()
    script = dial(timers, steps, pushing=pushing, delay=delay)
    # With several replicas the maximum is no valid draw of a replica.
    rng = rng or (AlwaysLongest() if isinstance(urls, Sequence) and len(urls) == 1 else Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        async with Transport(urls, dial=script, rng=rng, **options) as transport:
            upstream = Scripted(transport, script)
            yield upstream
            upstream.assert_nothing_left()
        nursery.cancel_scope.cancel(reason="the test is over")
