"""Which calls are coalesced, and the request of a shared call."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
import trio

from tests.support.upstream.calls import fields
from tests.support.upstream.memory_calls import Asked, answer, answering, coalescing, request_of
from umbel.core.call import StepTimeouts
from umbel.core.events import AttemptEnded
from umbel.core.http.header_field import Field
from umbel.net.stream import Stream
from umbel.policy.hedge import HedgeRules
from umbel.policy.retry import RetryRules
from umbel.upstream import CoalesceStatistics, TooBig
from umbel.upstream.replicas.origin import Origin

# Which calls are shared


async def test_identical_calls_that_overlap_are_made_once(autojump_clock) -> None:
    async with coalescing(answering(content=b"[1]", headers=[("x-a", "1"), ("x-a", "2")])) as upstream:
        started = trio.current_time()
        ends = await upstream.ends(*[upstream.start() for _ in range(5)])
        assert trio.current_time() - started == 1.0
        assert len(upstream.requests) == 1
        assert [(each.status, each.content) for each in ends] == [(200, b"[1]")] * 5
        for each in ends:
            assert [(name, value) for _, name, value in each.fields if name == b"x-a"] == [
                (b"x-a", b"1"),
                (b"x-a", b"2"),
            ]
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 4, 0, 0, 0)


async def test_a_call_after_the_response_is_a_new_call(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        for _ in range(3):
            await upstream.start().end()
        assert len(upstream.requests) == 3


async def test_a_waiter_that_joins_late_gets_the_response_at_the_same_time(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        began = trio.current_time()
        upstream.start()
        await trio.sleep(0.75)
        assert upstream.statistics == CoalesceStatistics(1, 1, 1, 0, 0, 0, 0)
        late = await upstream.start().end()
        assert trio.current_time() - began == late.ended_at - began == 1.0
        assert len(upstream.requests) == 1


async def test_a_response_with_an_error_status_is_shared(autojump_clock) -> None:
    async with coalescing(answering(status=503)) as upstream:
        assert [each.status for each in await upstream.ends(upstream.start(), upstream.start())] == [503, 503]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_methods_are_coalesced(method: str, autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        await upstream.ends(upstream.start(method=method), upstream.start(method=method))
        assert [request.method for request in upstream.requests] == [method]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_calls_of_unsafe_methods_are_not_coalesced(method: str, autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        gateway = [gateway_fields(name, "192.0.2.1") for name in ("one", "two")]
        await upstream.ends(*[upstream.start(method=method, gateway=each) for each in gateway])
        assert sorted(request.value(b"x-request-id") or b"" for request in upstream.requests) == [b"one", b"two"]
        assert upstream.statistics == CoalesceStatistics(0, 0, 0, 0, 0, 0, 0)


async def test_streamed_responses_and_streamed_requests_are_not_coalesced(
    autojump_clock,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    requests = [
        *(httpx.Request("GET", "http://a/", extensions={"stream": True}) for _ in range(2)),
        *(httpx.Request("GET", "http://a/", headers={"content-length": "1"}, content=body()) for _ in range(2)),
    ]
    async with coalescing(answering()) as upstream, trio.open_nursery() as nursery:
        for request in requests:

            async def ask(request: httpx.Request = request) -> None:
                response = await upstream.transport.handle_async_request(request)
                assert await response.aread() == b"{}"

            nursery.start_soon(ask)
    assert len(upstream.requests) == 4


async def test_a_calls_own_setting_decides_whether_it_is_coalesced(autojump_clock) -> None:
    for usual in (True, False):
        async with coalescing(answering(), coalesce=usual) as upstream:
            await upstream.ends(*[upstream.start(coalesce=not usual) for _ in range(2)])
            assert len(upstream.requests) == (2 if usual else 1)


OTHER: dict[str, dict[str, Any]] = {
    "target": {"target": b"/y"},
    "query": {"target": b"/x?a"},
    "method": {"method": "HEAD"},
    "body": {"content": b"q"},
    "field": {"headers": {"accept": "*/*"}},
    "cookie": {"headers": {"cookie": "a=1"}},
    "bound of the body": {"max_body": 10},
    "retries of its own": {"retry": RetryRules(attempts=3)},
    "hedges of its own": {"hedge": HedgeRules(seconds=2.0)},
    "limits of its steps": {"steps": StepTimeouts(read=2.0)},
}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
async def test_calls_with_different_requests_are_not_shared(other: dict[str, Any], autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        await upstream.ends(upstream.start(), upstream.start(**other))
        assert len(upstream.requests) == 2
        upstream.requests.clear()
        await upstream.ends(upstream.start(**other), upstream.start(**other))
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"max_body": 10}, {"max_body": 20}),
        ({"content": b""}, {"content": None}),
        ({"headers": {"x-a": "1"}}, {"headers": {"x-a": "2"}}),
        ({"headers": {"x-a": "1", "x-b": "2"}}, {"headers": {"x-b": "1", "x-a": "2"}}),
    ],
    ids=str,
)
async def test_two_values_of_one_field_are_two_calls(
    one: dict[str, Any], other: dict[str, Any], autojump_clock
) -> None:
    async with coalescing(answering()) as upstream:
        await upstream.ends(upstream.start(**one), upstream.start(**other))
        assert len(upstream.requests) == 2


async def test_calls_with_equal_policies_are_shared(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        own: list[dict[str, Any]] = [
            {"retry": RetryRules(attempts=3), "hedge": HedgeRules(seconds=2.0), "steps": StepTimeouts(read=2.0)}
            for _ in range(2)
        ]
        await upstream.ends(*[upstream.start(**each) for each in own])
        assert len(upstream.requests) == 1


async def test_a_shared_call_has_the_policies_of_its_calls(autojump_clock) -> None:
    statuses = iter([503, 200])

    async def busy_first(asked: Asked) -> bytes:
        return answer(next(statuses))

    async with coalescing(busy_first) as upstream:
        own = [upstream.start(retry=RetryRules(attempts=2)) for _ in range(2)]
        assert [each.status for each in await upstream.ends(*own)] == [200, 200]
    async with coalescing(answering(after=10.0)) as upstream:
        own = [upstream.start(hedge=HedgeRules(seconds=2.0)) for _ in range(2)]
        await upstream.ends(*own)
        assert len(upstream.requests) == 2
    async with coalescing(answering(content=b"too long")) as upstream:
        own = [upstream.start(max_body=5) for _ in range(2)]
        assert [type(each.error) for each in await upstream.ends(*own)] == [TooBig, TooBig]


async def test_the_body_of_an_httpx_request_in_memory_is_in_the_key(autojump_clock) -> None:
    async with coalescing(answering()) as upstream, trio.open_nursery() as nursery:
        for content in (b"a", b"b", b"a"):
            request = httpx.Request("GET", "http://a/x", stream=httpx.ByteStream(content))
            nursery.start_soon(upstream.transport.handle_async_request, request)
    assert sorted(request.body for request in upstream.requests) == [b"a", b"b"]


async def test_a_shared_call_has_the_step_timeouts_of_its_calls(autojump_clock) -> None:
    async with coalescing(answering(after=10.0)) as upstream:
        timeouts = httpx.Timeout(None, read=2.0)
        async with httpx.AsyncClient(transport=upstream.transport, timeout=timeouts) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("http://a/")
        assert trio.current_time() == 2.0


# The request of a shared call


def gateway_fields(request_id: str, client: str) -> tuple[tuple[Field, ...], ...]:
    """The fields that the gateway writes of one request."""
    said = {"X-Request-Id": request_id, "Via": f"1.0 {client}.example, 1.1 umbel"}
    return fields(said), fields({"X-Forwarded-For": client, "x-forwarded-proto": "https"})


async def test_a_shared_call_has_an_id_of_its_own_and_names_no_client(autojump_clock) -> None:
    async with coalescing(answering(), rng=random.Random(7)) as upstream:
        await upstream.ends(
            *[
                upstream.start(
                    headers={"Accept": "application/json"},
                    gateway=gateway_fields(name, client),
                    request=request_of(name),
                )
                for name, client in (("one", "192.0.2.1"), ("two", "192.0.2.2"))
            ]
        )
    (sent,) = upstream.requests
    ids = f"{random.Random(7).getrandbits(256):064x}"
    assert sorted((name, value) for name, value in sent.fields if name != b"traceparent") == [
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip"),
        (b"host", b"a"),
        (b"via", b"1.1 umbel"),
        (b"x-request-id", ids[:32].encode()),
    ]


@pytest.mark.parametrize("name", ["X-Request-Id", "Via", "X-Forwarded-For", "Baggage", "X-Any"])
async def test_a_field_that_the_gateway_did_not_write_is_in_the_key_and_is_sent(name: str, autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        gateway = (fields({"X-Other": "1"}),)
        users = [upstream.start(headers={name: user}, gateway=gateway) for user in ("alice", "bob")]
        await upstream.ends(*users)
        sent = [request.value(name.lower().encode()) or b"" for request in upstream.requests]
        assert sorted(sent) == [b"alice", b"bob"]


async def test_a_trace_field_of_the_call_itself_is_in_the_key(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        await upstream.ends(*[upstream.start(headers={"traceparent": user}) for user in ("alice", "bob")])
        assert len(upstream.requests) == 2


async def test_calls_with_different_gateway_fields_present_are_not_shared(autojump_clock) -> None:
    """The response may vary by a field that only the second call has, and that the first call did not send."""
    async with coalescing(answering()) as upstream:
        whole = gateway_fields("one", "192.0.2.1")
        await upstream.ends(upstream.start(gateway=whole[:1]), upstream.start(gateway=whole))
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("vary", ["*", "accept, X-Forwarded-For", "traceparent", "tracestate"])
async def test_a_response_that_varies_by_a_field_outside_of_the_key_is_not_shared(vary: str, autojump_clock) -> None:
    async with coalescing(answering(headers=[("vary", vary)])) as upstream:
        gateway = (fields({"x-forwarded-for": "192.0.2.1"}),)
        await upstream.ends(*[upstream.start(gateway=gateway) for _ in range(2)])
        assert upstream.statistics.unshared == 1
        assert len(upstream.requests) == 2


async def test_a_response_that_varies_by_a_field_of_the_key_is_shared(autojump_clock) -> None:
    async with coalescing(answering(headers=[("vary", "accept, x-forwarded-proto")])) as upstream:
        gateway = (fields({"x-forwarded-for": "192.0.2.1"}),)
        await upstream.ends(*[upstream.start(gateway=gateway) for _ in range(2)])
        assert len(upstream.requests) == 1


async def test_a_shared_call_has_records_of_its_own_and_its_waiters_get_its_attempts(autojump_clock) -> None:
    async with coalescing(answering()) as upstream:
        made = [upstream.start(request=request_of(name)) for name in ("first", "second")]
        (shared,) = upstream.client.coalescing.joinable.values()
        await upstream.ends(*made)
    (sent,) = upstream.requests
    own = shared.context
    began, joined = made
    assert began.attempts == own.attempts != []
    assert began.attempts is not own.attempts
    # For the waiter that joined, the attempts are marked as coalesced.
    assert [
        (each.coalesced, each.replica, each.started_at, each.ended_at, each.status) for each in joined.attempts
    ] == [(True, each.replica, each.started_at, each.ended_at, each.status) for each in own.attempts]
    (ended,) = [event for each in made for event in each.context.recorder.events]  # type: ignore[attr-defined]
    assert isinstance(ended, AttemptEnded)
    assert ended.request is own.request is not None
    assert ended.request.request_id not in ("r-first", "r-second")
    trace = ended.request.trace
    assert trace.trace_id != "ab" * 16
    assert (trace.parent_id, trace.flags, trace.state) == (None, "01", "")
    assert (sent.value(b"traceparent") or b"").startswith(b"00-%b-" % trace.trace_id.encode())
    assert sent.value(b"tracestate") is None


async def test_a_shared_call_does_not_run_in_the_context_of_the_caller_that_began_it(autojump_clock) -> None:
    of_a_request: ContextVar[str] = ContextVar("of_a_request", default="none")
    seen: list[str] = []

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        seen.append(of_a_request.get())
        return await upstream.dial(origin, timeout)

    async with coalescing(answering(), dial=dial) as upstream:
        of_a_request.set("the first caller's")
        await upstream.start().end()
    assert seen == ["none"]


async def test_a_response_with_a_content_coding_is_decoded_for_every_waiter(autojump_clock) -> None:
    packed = gzip.compress(b"text")

    async def act(asked: object) -> bytes:
        return answer(content=packed, headers={"content-encoding": "gzip"})

    async with coalescing(act) as upstream:
        for end in await upstream.ends(upstream.start(), upstream.start()):
            assert end.content == b"text"
            assert b"content-encoding" not in {name for _, name, _ in end.fields}
        assert len(upstream.requests) == 1
