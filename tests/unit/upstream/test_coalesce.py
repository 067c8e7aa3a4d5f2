"""Which calls become one, and what the upstream sees of them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextvars import ContextVar

import httpx
import pytest
import trio
import trio.testing

from tests.support.coalescing import Bottom, answering, asking, call_facts, together
from umbel.events import AttemptEnded
from umbel.model import facts_of
from umbel.policy.ejection import EjectionRules
from umbel.policy.sharing import GATEWAY_FIELDS
from umbel.upstream.attempt import Attempt
from umbel.upstream.coalesce import Coalesce, CoalesceStatistics
from umbel.upstream.state import STATE, CallState

# What is shared


async def test_identical_calls_that_overlap_are_made_once(autojump_clock) -> None:
    bottom = Bottom(answering(content=b"[1]", headers=[("x-a", "1"), ("x-a", "2")]))
    async with Coalesce(bottom) as coalesce:
        started = trio.current_time()
        answers = await together(coalesce, *(asking() for _ in range(5)))
        assert trio.current_time() - started == 1.0
        assert len(bottom.requests) == 1
        assert [each.content for each in answers] == [b"[1]"] * 5
        assert {tuple(each.headers.raw) for each in answers} == {
            ((b"x-a", b"1"), (b"x-a", b"2"), (b"Content-Length", b"3"))
        }
        assert len({id(each) for each in answers}) == 5, "whoever uses a response changes it"
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 4, 0, 0, 0)


async def test_a_call_after_the_answer_is_a_new_one(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        for _ in range(3):
            await coalesce.handle_async_request(asking())
    assert len(bottom.requests) == 3


async def test_a_late_caller_gets_the_answer_when_the_first_does(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(coalesce.handle_async_request, asking())
        await trio.sleep(0.75)
        before = trio.current_time()
        assert coalesce.statistics() == CoalesceStatistics(1, 1, 1, 0, 0, 0, 0)
        await coalesce.handle_async_request(asking())
        assert trio.current_time() - before == 0.25
    assert len(bottom.requests) == 1


async def test_an_error_status_is_an_answer_like_any_other(autojump_clock) -> None:
    bottom = Bottom(answering(status=503))
    async with Coalesce(bottom) as coalesce:
        answers = await together(coalesce, asking(), asking())
    assert [each.status_code for each in answers] == [503, 503]
    assert len(bottom.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_methods_are_coalesced(method: str, autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(method=method), asking(method=method))
    assert [request.method for request in bottom.requests] == [method]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
async def test_other_methods_are_not(method: str, autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        requests = [asking(method=method), asking(method=method)]
        await together(coalesce, *requests)
        assert sorted(map(id, bottom.requests)) == sorted(map(id, requests)), "they pass as they are"
        assert coalesce.statistics() == Coalesce(bottom).statistics()


async def test_streams_pass(autojump_clock) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(stream=True), asking(stream=True))
        await together(coalesce, *(httpx.Request("GET", "http://upstream", content=body()) for _ in range(2)))
    assert len(bottom.requests) == 4


OTHER: dict[str, httpx.Request] = {
    "target": asking(target="/y"),
    "query": asking(target="/x?a"),
    "method": asking(method="HEAD"),
    "body": httpx.Request("GET", "http://upstream", content=b"q", extensions={"target": b"/x"}),
    "origin": httpx.Request("GET", "http://upstream:81", extensions={"target": b"/x"}),
    "scheme": httpx.Request("GET", "https://upstream", extensions={"target": b"/x"}),
    "field": httpx.Request("GET", "http://upstream", headers={"accept": "*/*"}, extensions={"target": b"/x"}),
    "cookie": httpx.Request("GET", "http://upstream", headers={"cookie": "a=1"}, extensions={"target": b"/x"}),
    "limit": asking(timeout={"connect": 1.0, "read": 2.0}),
    "TLS name": asking(sni_hostname="other"),
    "unknown extension": asking(other=object()),
    "unknown extension that has no hash": asking(other=[]),
}


@pytest.mark.parametrize("request_of", OTHER.values(), ids=OTHER)
async def test_what_asks_something_else_is_another_call(request_of: httpx.Request, autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(), request_of)
        assert len(bottom.requests) == 2
        bottom.requests.clear()
        await together(coalesce, request_of, request_of)
        assert len(bottom.requests) == 1


async def test_equal_extensions_are_one_and_a_bound_of_the_body_is_part_of_the_call(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, *(asking(timeout={"read": 1.0}, rules=EjectionRules()) for _ in range(2)))
        assert len(bottom.requests) == 1
        await together(coalesce, asking(call_facts(max_body=10)), asking(call_facts(max_body=20)))
    assert len(bottom.requests) == 3


async def test_a_body_that_stands_ready_as_a_stream_is_part_of_the_call(autojump_clock) -> None:
    def with_body(content: bytes) -> httpx.Request:
        return httpx.Request("GET", "http://upstream/x", stream=httpx.ByteStream(content))

    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, with_body(b"a"), with_body(b"b"), with_body(b"a"))
    assert sorted(request.read() for request in bottom.requests) == [b"a", b"b"]


# What the upstream sees


def spoken(request_id: str, client: str) -> list[tuple[str, str]]:
    return [
        ("Accept", "application/json"),
        ("X-Request-Id", request_id),
        ("Via", f"1.0 {client}.example, 1.1 umbel"),
        ("X-Forwarded-For", client),
        ("x-forwarded-proto", "https"),
    ]


WRITTEN = frozenset({b"x-request-id", b"via", b"x-forwarded-for", b"x-forwarded-proto"})
"""The names of the fields of ``spoken`` that the gateway wrote."""


async def test_the_flight_has_ids_of_its_own_and_names_no_client(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom, rng=random.Random(7)) as coalesce:
        requests = [
            httpx.Request(
                "GET", "http://upstream/x", headers=spoken(ident, client), extensions={GATEWAY_FIELDS: WRITTEN}
            )
            for ident, client in (("one", "192.0.2.1"), ("two", "192.0.2.2"))
        ]
        await together(coalesce, *requests)
    (sent,) = bottom.requests
    ids = f"{random.Random(7).getrandbits(256):064x}"
    assert sorted(sent.headers.multi_items()) == [
        ("accept", "application/json"),
        ("host", "upstream"),
        ("via", "1.1 umbel"),
        ("x-request-id", ids[:32]),
    ]
    assert all(len(request.headers) == 6 for request in requests), "the callers' requests are as they were"


@pytest.mark.parametrize("name", ["X-Request-Id", "Via", "X-Forwarded-For", "traceparent", "baggage", "X-Any"])
async def test_a_field_that_the_gateway_did_not_write_is_in_the_key_and_is_sent(name: str, autojump_clock) -> None:
    requests = [
        httpx.Request("GET", "http://upstream/x", headers={name: user}, extensions={GATEWAY_FIELDS: {b"x-other"}})
        for user in ("alice", "bob")
    ]
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, *requests)
    assert sorted(request.headers[name] for request in bottom.requests) == ["alice", "bob"]


@pytest.mark.parametrize("vary", ["*", "accept, X-Forwarded-For", "traceparent"])
async def test_an_answer_that_varies_by_more_than_the_key_is_not_shared(vary: str, autojump_clock) -> None:
    bottom = Bottom(answering(headers=[("vary", vary)]))
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, *(asking(**{GATEWAY_FIELDS: {b"x-forwarded-for"}}) for _ in range(2)))
        assert coalesce.statistics().unshared == 1
    assert len(bottom.requests) == 2


@pytest.mark.parametrize("values", [(1, True), (1, 1.0), ({"read": 1}, {"read": True}), ([], 0)], ids=repr)
async def test_extensions_that_are_equal_in_python_only_are_two_calls(
    values: tuple[object, object], autojump_clock
) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, *(asking(rule=value) for value in values))
    assert len(bottom.requests) == 2


async def test_the_flight_has_records_of_its_own_and_its_waiters_get_its_attempts(autojump_clock) -> None:
    bottom = Bottom(answering())
    first, second = call_facts("first"), call_facts("second")
    async with Coalesce(Attempt(bottom)) as coalesce:
        await together(coalesce, asking(first), asking(second))
    (sent,) = bottom.requests
    own = facts_of(sent)
    assert own is not None
    assert own not in (first, second)
    # Which of the two began it is the scheduler's dice. Of the one that found it under way they were another's.
    began, joined = sorted((first.attempts, second.attempts), key=lambda attempts: attempts[0].coalesced)
    assert began == own.attempts != []
    assert began is not own.attempts
    assert joined == [each._replace(coalesced=True) for each in own.attempts]
    events = [event for facts in (first, second) for event in facts.recorder.events]
    (ended,) = events
    assert isinstance(ended, AttemptEnded)
    assert ended.request is own.request
    assert ended.request.request_id not in ("r-first", "r-second")
    trace = ended.request.trace
    assert trace.trace_id != "ab" * 16
    assert (trace.parent_id, trace.flags, trace.state) == (None, "01", "")
    assert sent.headers["traceparent"].startswith(f"00-{trace.trace_id}-")
    assert "tracestate" not in sent.headers


async def test_what_the_layers_above_share_is_not_the_flights(autojump_clock) -> None:
    bottom = Bottom(answering())
    theirs = [CallState(), CallState()]
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, *(asking(**{STATE: state}) for state in theirs))
    (sent,) = bottom.requests
    assert not any(sent.extensions[STATE] is state for state in theirs)


async def test_a_flight_does_not_run_in_the_context_of_the_caller_that_began_it(autojump_clock) -> None:
    of_a_request: ContextVar[str] = ContextVar("of_a_request", default="none")
    seen: list[str] = []

    async def look(request: httpx.Request) -> httpx.Response:
        seen.append(of_a_request.get())
        return httpx.Response(200)

    async with Coalesce(Bottom(look)) as coalesce:
        of_a_request.set("the first caller's")
        await coalesce.handle_async_request(asking())
    assert seen == ["none"]
