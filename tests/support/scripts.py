"""A transport that plays a script, one step per attempt, and remembers what became of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx
import pytest
import trio

from umbel.events import NULL
from umbel.kinds import Kind
from umbel.model import FACTS, CallFacts, RequestFacts, Trace
from umbel.upstream.state import call_state


class Step(NamedTuple):
    """An attempt takes ``seconds``, then answers with a status or raises."""

    seconds: float
    outcome: int | BaseException
    headers: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default, never written to
    open: bool = False
    """The response comes with a stream that is not read."""


@dataclass
class Made:
    """One attempt that was made."""

    at: float
    cause: str | None
    ended_at: float | None = None
    cancelled: bool = False
    reason: str | None = None
    turn: int = 0
    """The turn of the scheduler in which it ended."""


HANGS = Step(1000.0, 200)
"""Longer than anybody waits."""


class OpenStream(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"body"

    async def aclose(self) -> None:
        self.closed = True  # Even if it is cancelled, as trio's own.
        await trio.lowlevel.checkpoint()


class Turns(trio.abc.Instrument):
    """Counts the turns of the scheduler."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@dataclass
class Script(httpx.AsyncBaseTransport):
    """Plays ``steps`` in order; the last one again and again."""

    steps: Iterable[Step]
    made: list[Made] = field(default_factory=list)
    streams: list[OpenStream] = field(default_factory=list)
    in_flight: int = 0
    turns: Turns = field(default_factory=Turns)

    def __post_init__(self) -> None:
        self.steps = list(self.steps)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        steps = list(self.steps)
        step = steps[min(len(self.made), len(steps) - 1)]
        state = call_state(request)
        made = Made(trio.current_time(), state.cause if state is not None else None)
        self.made.append(made)
        self.in_flight += 1
        try:
            await trio.sleep(step.seconds)
            if isinstance(step.outcome, BaseException):
                raise step.outcome
        except trio.Cancelled as error:
            made.cancelled, made.reason = True, error.reason
            raise
        finally:
            self.in_flight -= 1
            made.ended_at, made.turn = trio.current_time(), self.turns.count
        if not step.open:
            return httpx.Response(step.outcome, headers=step.headers, content=b"%d" % len(self.made))
        self.streams.append(OpenStream())
        return httpx.Response(step.outcome, headers=step.headers, stream=self.streams[-1])

    @property
    def starts(self) -> list[float]:
        return [each.at for each in self.made]

    @property
    def causes(self) -> list[str | None]:
        return [each.cause for each in self.made]


class Ticket:
    """A breaker's ticket; ``opens_at`` is when the breaker opens."""

    def __init__(self, opens_at: float = 0.0) -> None:
        self._opens_at = opens_at

    @property
    def blocked(self) -> bool:
        return trio.current_time() >= self._opens_at

    def attempted(self, now: float, kind: Kind | None, status: int | None) -> None:
        raise AssertionError("the attempt layer's to call")


def call_facts(deadline: float) -> CallFacts:
    """The facts of a call of a request that begins now and has ``deadline`` seconds."""
    now = trio.current_time()
    request = RequestFacts("id", Trace("ab" * 16), "GET", "/", "/", now, now + deadline)
    return CallFacts("call", "upstream", request, now + deadline, NULL)


def call_request(method: str = "GET", *, deadline: float | None = None, **more: object) -> httpx.Request:
    """A request, of a call with that deadline if there is one. ``more`` is ``httpx.Request``'s."""
    extensions = {FACTS: call_facts(deadline)} if deadline is not None else {}
    return httpx.Request(method, "http://upstream/", extensions=extensions, **more)


def fates(script: Script) -> list[str]:
    """What became of each attempt: its reason if it was cancelled."""
    return [str(each.reason) if each.cancelled else "ended" for each in script.made]


async def fails(layer: httpx.AsyncBaseTransport, outcome: int | Exception, **more: object) -> None:
    """A request through ``layer`` ends with this status, or with this very exception."""
    if isinstance(outcome, int):
        assert (await layer.handle_async_request(call_request(**more))).status_code == outcome
    else:
        with pytest.raises(type(outcome)) as caught:
            await layer.handle_async_request(call_request(**more))
        assert caught.value is outcome
