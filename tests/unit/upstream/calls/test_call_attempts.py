"""Attempts: added fields, records, and the replacement of an ended kept connection."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
import trio
from msgspec.structs import replace

from tests.support.upstream.scripted_upstream import HANGS, KEPT, OK, RESET, Scripted, Step, scripted
from umbel.core.events import AttemptEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt, DialTimes, RequestFacts, Trace
from umbel.upstream import Retry
from umbel.upstream.calls.failure_kind import CLIENT_GONE
from umbel.upstream.errors import BudgetSpent, CallTimedOut, ConnectionReset, Malformed

DEADLINE = "x-envoy-expected-rq-timeout-ms"


def facts(budget: float = 10.0, state: str = "") -> RequestFacts:
    """An inbound request that begins now."""
    now = trio.current_time()
    return RequestFacts("id", Trace("ab" * 16, state=state, flags="01"), "GET", "/", "/", now, now + budget)


def headers(upstream: Scripted) -> list[httpx.Headers]:
    """The fields of each request that was received."""
    heads = [made.request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:] for made in upstream.script.made]
    return [httpx.Headers([tuple(line.split(b": ", 1)) for line in head]) for head in heads]


@pytest.mark.parametrize(
    ("state", "given"),
    [
        ("", {"accept-encoding": "gzip"}),
        ("", {"traceparent": "forged", DEADLINE: "1"}),
        ("vendor=1", {"traceparent": "forged", "tracestate": "forged", DEADLINE: "1"}),
    ],
)
async def test_each_attempt_sends_the_time_that_is_left_and_a_new_parent_id(
    state: str, given: dict, autojump_clock
) -> None:
    async with scripted([Step(0.25, 503)], retry=Retry(backoff=0.25)) as upstream:
        request = facts(2.0, state)
        await trio.sleep(0.5)
        await upstream.call(headers=given, request=request)
        first, second = headers(upstream)
    assert [each.get_list(DEADLINE) for each in (first, second)] == [["1500"], ["1000"]]
    assert first.get_list("tracestate") == [state] * bool(state)
    parents = [each.get_list("traceparent") for each in (first, second)]
    for (parent,) in parents:
        assert re.fullmatch("00-" + "ab" * 16 + "-[0-9a-f]{16}-01", parent)
    assert parents[0] != parents[1]


@pytest.mark.parametrize(("budget", "said"), [(0.0001, ["1"]), (math.inf, [])])
async def test_the_deadline_header_is_at_least_one_and_absent_without_a_deadline(budget, said, autojump_clock) -> None:
    async with scripted([OK]) as upstream:
        await upstream.call(request=facts(budget))
        assert headers(upstream)[0].get_list(DEADLINE) == said


async def test_calls_that_start_in_one_turn_send_their_own_deadlines_and_traces(autojump_clock) -> None:
    async with scripted([OK]) as upstream:
        request, other = facts(), msgspec.structs.replace(facts(), trace=Trace("cd" * 16))
        async with trio.open_nursery() as nursery:
            for limit, of_request in ((None, request), (1.0, request), (None, request), (None, other)):
                nursery.start_soon(partial(upstream.call, request=of_request, limit=limit))
        sent = headers(upstream)
    assert sorted((each[DEADLINE], each["traceparent"][3:5]) for each in sent) == [
        ("1000", "ab"),
        ("10000", "ab"),
        ("10000", "ab"),
        ("10000", "cd"),
    ]
    assert len({each["traceparent"] for each in sent}) == 4


@pytest.mark.parametrize("name", [b"x-left", None])
async def test_the_name_of_the_deadline_header_can_be_set_or_be_none(name: bytes | None, autojump_clock) -> None:
    async with scripted([OK]) as upstream:
        upstream.client.deadline_header = name
        await upstream.call(request=facts())
        sent = headers(upstream)[0]
        assert (sent.get("x-left"), sent.get(DEADLINE)) == ("10000" if name else None, None)


async def test_a_request_without_an_inbound_request_has_no_added_fields(autojump_clock) -> None:
    async with scripted([OK]) as upstream:
        request = httpx.Request("GET", "http://x/path?a", headers={"traceparent": "of the user"})
        await upstream.transport.handle_async_request(request)
        assert upstream.script.made[0].request.startswith(b"GET /path?a HTTP/1.1\r\n")
        (sent,) = headers(upstream)
        assert sent["traceparent"] == "of the user"
        assert DEADLINE not in sent


async def test_no_attempt_is_made_after_the_deadline(autojump_clock) -> None:
    async with scripted([OK]) as upstream:
        request = facts(1.0)
        await trio.sleep(1)
        with pytest.raises(BudgetSpent) as caught:
            await upstream.call(request=request)
        assert (caught.value.kind, upstream.script.made, upstream.attempts) == (Kind.TIMEOUT, [], [])


# How each is recorded


async def test_each_attempt_is_recorded_with_its_number_its_times_and_its_status(autojump_clock) -> None:
    async with scripted([KEPT._replace(seconds=0.25, outcome=503)], retry=Retry(backoff=0.25)) as upstream:
        await upstream.call()
        ids = {"span_id": 0, "trace": None, "method": ""}
        dialled = DialTimes(0.0, ended_at=0.0)
        assert [replace(each, **ids) for each in upstream.attempts] == [
            Attempt(1, "http://upstream", 0.0, 0.25, 503, None, reused=False, cause="first", dial=dialled),
            Attempt(2, "http://upstream", 0.5, 0.75, 503, None, reused=True, cause="retry"),
        ]
        recorded = [event for event in upstream.records.events if isinstance(event, AttemptEnded)]
        assert [event.attempt for event in recorded] == upstream.attempts
        assert {(event.call, event.upstream) for event in recorded} == {("call", "upstream")}
        await upstream.call(takes_attempts=False)
        assert len(upstream.records.events) == 2, "nothing, where the recorder does not want attempts by themselves"


@pytest.mark.parametrize(("breaks", "kind"), [(True, Kind.RESET), (False, Kind.MALFORMED)])
async def test_a_failed_attempt_is_recorded_with_its_kind_and_details(breaks, kind: Kind, autojump_clock) -> None:
    cut = Step(0.0, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", breaks=breaks)
    async with scripted([cut]) as upstream:
        error = await upstream.outcome()
        assert isinstance(error, ConnectionReset | Malformed)
        (attempt,) = upstream.attempts
        assert (attempt.kind, attempt.status) == (kind, 200)
        (event,) = upstream.records.events
        assert isinstance(event, AttemptEnded)
        assert event.detail == error.detail


async def test_an_internal_error_is_recorded_with_the_kind_internal(autojump_clock) -> None:
    async with scripted([Step(0.0, bug := RuntimeError("bug"))]) as upstream:
        await upstream.ends_as(bug)
        assert upstream.kinds == [Kind.INTERNAL]
        assert bug.__traceback__ is not None, "it says where"


@pytest.mark.parametrize(
    ("own_limit", "starts_after", "cancelled_after", "reason", "kind"),
    [
        (None, 0.0, 1.0, CLIENT_GONE, Kind.CLIENT_GONE),
        (None, 0.0, 1.0, "a sibling failed", Kind.CANCELLED),
        (None, 0.0, 1.0, None, Kind.CANCELLED),
        (1.0, 0.0, 1.0, "timeout", Kind.TIMEOUT),
        (1.0, 0.875, 1.0, "timeout", Kind.TIMEOUT),
        (None, 0.0, 10.0, "deadline", Kind.TIMEOUT),
        (None, 5.0, 10.0, "deadline", Kind.TIMEOUT),
        (None, 5.5, 10.0, "deadline", Kind.CANCELLED),
    ],
)
async def test_a_cancelled_attempt_is_recorded_with_the_kind_of_its_cut(
    own_limit: float | None, starts_after: float, cancelled_after: float, reason, kind: Kind, autojump_clock
) -> None:
    """Of a request of ten seconds."""
    async with scripted([HANGS]) as upstream, trio.open_nursery() as nursery:
        request = facts(10.0)
        scope = trio.CancelScope()

        async def cancel_later() -> None:
            await trio.sleep(cancelled_after)
            scope.cancel(reason=reason)

        nursery.start_soon(cancel_later)
        # At its own limit a call ends by itself; the scheduler decides at random whether the cancel comes first.
        with scope, suppress(CallTimedOut):
            await trio.sleep(starts_after)
            await upstream.call(request=request, **({} if own_limit is None else {"limit": own_limit}))
        assert upstream.kinds == [kind]


# Kept connections that have ended

DEAD: Any = [KEPT._replace(then=RESET), OK]
"""The first connection ends when it gets its second request."""


@pytest.mark.parametrize("pushing", [True, False])
async def test_an_ended_kept_connection_is_replaced_within_the_attempt(pushing: bool, autojump_clock) -> None:
    async with scripted(DEAD, pushing=pushing) as upstream:
        await upstream.call()
        assert (await upstream.call(method="PUT", content=b"whole")).content == b"2"
        (attempt,) = upstream.attempts
        assert (attempt.status, attempt.reused) == (200, False)
        assert [made.request for made in upstream.script.made] == [upstream.script.made[1].request] * 2
        pool = upstream.client.statistics().pool
        assert (pool.opened, pool.reused, pool.replaced) == (2, 1, 1)


@pytest.mark.parametrize("content", [b"", b"x" * 100_000])
async def test_a_post_is_not_sent_again_after_its_kept_connection_ended(content: bytes, autojump_clock) -> None:
    async with scripted(DEAD, retry=Retry()) as upstream:
        await upstream.call()
        error = await upstream.outcome(method="POST", content=content)
        assert isinstance(error, ConnectionReset)
        assert error.untouched
        assert len(upstream.script.made) == 1


@pytest.mark.parametrize("pushing", [True, False])
async def test_a_new_connection_that_ends_at_once_is_not_replaced(pushing: bool, autojump_clock) -> None:
    async with scripted([RESET], pushing=pushing) as upstream:
        assert isinstance(await upstream.outcome(content=b"x" * 100_000, method="PUT"), ConnectionReset)
        assert len(upstream.script.made) == 1
