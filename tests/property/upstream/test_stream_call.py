"""A stream call ends once, gives back everything and passes on one response, in any order of its events."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.upstream.raw_server import Peer
from tests.support.upstream.stream_calls import head, streaming
from umbel.core.call import StreamLimits
from umbel.core.errors import UpstreamError
from umbel.upstream import Hedge, Retry
from umbel.upstream.calls.stream_call import StreamCall

SECONDS = st.sampled_from([0.0, 1.0, 2.0])
"""Few values, so that many events happen at the same time."""


class Answer(NamedTuple):
    """Response of one connection."""

    before_head: float
    status: bytes
    pieces: list[float]
    """Seconds before each piece."""
    ends: Literal["whole", "broken", "never"]
    refused: bool
    """Whether the connect fails."""


class Step(NamedTuple):
    """Steps of the caller after the head, or after the time of the previous step."""

    what: Literal["receive", "sleep", "close", "cancel", "become a stream", "take the rest"]
    seconds: float


ANSWERS = st.builds(
    Answer,
    SECONDS,
    st.sampled_from([b"200 OK", b"200 OK", b"503 Busy"]),
    st.lists(SECONDS, max_size=3),
    st.sampled_from(["whole", "broken", "never"]),
    st.sampled_from([False, False, False, True]),
)
STEPS = st.builds(
    Step,
    st.sampled_from(["receive"] * 3 + ["sleep", "close", "cancel", "become a stream", "take the rest"]),
    SECONDS,
)


class Limits(NamedTuple):
    """Time limits of a call."""

    own: float | None
    """``CallContext.limit``."""
    stream: StreamLimits | None


LIMIT = st.none() | st.sampled_from([1.0, 2.0, 3.0])
LIMITS = st.builds(Limits, LIMIT, st.none() | st.builds(StreamLimits, LIMIT, LIMIT, LIMIT))


class Upstream:
    """Connections that answer in order; the last answer repeats."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self.began = 0

    async def serve(self, peer: Peer) -> None:
        while await peer.read_head():
            self.began += 1
            answer = self._answers[min(peer.number, len(self._answers) - 1)]
            await trio.sleep(answer.before_head)
            if answer.refused:
                return
            await peer.send(head(None, b"X-Number: %d" % peer.number, status=answer.status))
            for seconds in answer.pieces:
                await trio.sleep(seconds)
                await peer.send(b"1\r\n%d\r\n" % (peer.number % 10))
            if answer.ends == "never":
                await peer.closed()
            if answer.ends != "whole":
                return
            await peer.send(b"0\r\n\r\n")

    def whole(self, number: int) -> bytes | None:
        """The complete body of a connection; None if it breaks off."""
        answer = self._answers[min(number, len(self._answers) - 1)]
        return b"%d" % (number % 10) * len(answer.pieces) if answer.ends == "whole" else None


async def use(call: StreamCall, steps: list[Step]) -> tuple[bytes, bool]:
    """Receive the body of a call to its end. Return what was received, and whether it was complete."""
    received, over = b"", False
    try:
        for step in steps:
            if step.what == "sleep":
                await trio.sleep(step.seconds)
            elif step.what == "close":
                await call.aclose()
                break
            elif step.what == "cancel":
                call.cancel("client-gone")
                break
            elif step.what == "become a stream":
                assert call.become_stream(), "no other call is a stream"
            elif step.what == "take the rest":
                ended = call.response_ended
                received += call.take_rest()
                over = over or ended
            elif not over:
                with trio.move_on_after(5) as scope:
                    data = await call.receive()
                if scope.cancelled_caught:
                    break
                received, over = received + data, not data
    except UpstreamError:
        pass
    await call.aclose()
    return received, over


async def check(
    answers: list[Answer], steps: list[Step], limits: Limits, leaves: float | None, *, pushing: bool
) -> None:
    upstream = Upstream(answers)
    policies = {"retry": Retry(attempts=3, backoff=0.0), "hedge": Hedge(after=1.0, max=2)}
    async with streaming(upstream.serve, pushing=pushing, max_streams=1, **policies) as streams:
        for _ in range(2):  # The second call may find a kept connection.
            made = streams.start(mode="stream", limit=limits.own, stream_limits=limits.stream)
            if leaves is not None:
                streams.nursery.start_soon(made.leave_at, trio.current_time() + leaves, "client-gone")
            with trio.move_on_after(30):
                await made.over.wait()
            call = made.call
            assert isinstance(call, StreamCall)
            if made.result is None:
                call.cancel("client-gone")
            elif call.error is None:
                number = next(int(value) for _, name, value in call.fields if name == b"x-number")
                received, over = await use(call, steps)
                whole = upstream.whole(number)
                assert received == b"%d" % (number % 10) * len(received)
                assert not over or received == whole
            await trio.sleep(60)
            streams.assert_nothing_left()
            (replica,) = streams.client.statistics().balance.replicas
            assert replica.taken == sum(len(each.context.attempts) for each in [*streams.made, made])
            streams.made.append(made)


@pytest.mark.parametrize("pushing", [False, True])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(
    st.lists(ANSWERS, min_size=1, max_size=4),
    st.lists(STEPS, max_size=6),
    LIMITS,
    st.none() | st.sampled_from([0.0, 1.0, 2.0, 3.0]),
)
def test_a_stream_call_ends_once_and_leaves_nothing_in_any_order_of_events(
    pushing: bool, answers: list[Answer], steps: list[Step], limits: Limits, leaves: float | None
) -> None:
    run = partial(check, answers, steps, limits, leaves, pushing=pushing)
    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
