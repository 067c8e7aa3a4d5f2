from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.layers import call_facts
from umbel.errors import UpstreamError
from umbel.kinds import Kind
from umbel.model import CallFacts
from umbel.upstream.ending import CLIENT_GONE, failed_by, kind_of_end
from umbel.upstream.errors import BadRequest, BudgetSpent, ConnectFailed, NameFailed, Overflow, TooBig


@pytest.mark.parametrize(
    ("error", "kind", "verdict"),
    [
        (ConnectFailed("x"), Kind.CONNECT, True),
        (NameFailed("x"), Kind.DNS, True),
        (TooBig("x"), Kind.TOO_BIG, False),
        (Overflow("x"), Kind.OVERFLOW, None),
        (BadRequest("x"), Kind.BAD_REQUEST, None),
        (BudgetSpent("x"), Kind.TIMEOUT, None),  # of an attempt that was never made
        (httpx.ConnectError("x"), Kind.CONNECT, True),
        (httpx.ConnectTimeout("x"), Kind.CONNECT, True),
        (httpx.ReadTimeout("x"), Kind.TIMEOUT, True),
        (httpx.WriteTimeout("x"), Kind.TIMEOUT, True),
        (httpx.PoolTimeout("x"), Kind.OVERFLOW, None),
        (httpx.ReadError("x"), Kind.RESET, True),
        (httpx.RemoteProtocolError("x"), Kind.MALFORMED, True),
        (httpx.DecodingError("x"), Kind.MALFORMED, True),
        (httpx.LocalProtocolError("x"), Kind.BAD_REQUEST, None),
        (httpx.UnsupportedProtocol("x"), Kind.BAD_REQUEST, None),
        (RuntimeError("x"), Kind.INTERNAL, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_has_a_kind_and_says_who_is_to_blame(error: Exception, kind: Kind, verdict: bool | None) -> None:
    assert kind_of_end(error, None, 0.0) is kind
    assert failed_by(error, None, 0.0) is verdict
    if isinstance(error, UpstreamError):
        assert isinstance(error, httpx.TransportError)


async def _cut(facts: CallFacts | None, after: float, reason: str | None, *, in_nursery: bool) -> tuple[Kind, object]:
    """What a cancel after so many seconds means, of something that began now."""
    started_at = trio.current_time()
    seen: list[tuple[Kind, object]] = []

    async def hang() -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def watched() -> None:
                try:
                    if in_nursery:
                        async with trio.open_nursery() as children:
                            children.start_soon(hang)
                            children.start_soon(hang)
                    else:
                        await hang()
                except BaseException as error:
                    seen.append((kind_of_end(error, facts, started_at), failed_by(error, facts, started_at)))
                    raise

            nursery.start_soon(watched)
            await trio.sleep(after)
            scope.cancel(reason=reason)
    return seen[0]


@pytest.mark.parametrize("in_nursery", [False, True])
async def test_a_cancel_is_a_timeout_by_its_own_deadline_alone(in_nursery: bool, autojump_clock) -> None:
    cancelled, timeout = (Kind.CANCELLED, None), (Kind.TIMEOUT, True)
    for reason in (None, "a sibling failed", "deadline"):
        assert await _cut(None, 5.0, reason, in_nursery=in_nursery) == cancelled
        assert await _cut(call_facts(6.0), 5.0, reason, in_nursery=in_nursery) == cancelled
        assert await _cut(call_facts(5.0), 5.0, reason, in_nursery=in_nursery) == timeout
        assert await _cut(call_facts(5.0, route_budget=100.0), 5.0, reason, in_nursery=in_nursery) == timeout
    assert await _cut(call_facts(5.0), 5.0, CLIENT_GONE, in_nursery=in_nursery) == (Kind.CLIENT_GONE, None)
    late = call_facts(5.0)
    await trio.sleep(2.6)
    assert await _cut(late, 2.4, None, in_nursery=in_nursery) == cancelled
