from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

import httpx
import pytest
import trio
import trio.testing

from tests.support.records import Records
from umbel.errors import NotRunningError
from umbel.events import AttemptEnded
from umbel.kinds import Kind
from umbel.model import FACTS, CallFacts, RequestFacts, Trace, facts_of
from umbel.policy.ejection import EjectionRules
from umbel.upstream.attempt import Attempt
from umbel.upstream.breaker import Breaker
from umbel.upstream.coalesce import CLOSE_SECONDS, Coalesce, CoalesceStatistics
from umbel.upstream.errors import ConnectFailed, ConnectionReset
from umbel.upstream.state import STATE, CallState

Act = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Bottom(httpx.AsyncBaseTransport):
    """Runs a function for each request; knows what it was asked and what is under way."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.requests: list[httpx.Request] = []
        self.in_flight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.in_flight += 1
        try:
            return await self._act(request)
        finally:
            self.in_flight -= 1


def answering(
    *, after: float = 1.0, status: int = 200, content: bytes = b"{}", headers: list[tuple[str, str]] | None = None
) -> Act:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        return httpx.Response(status, headers=headers, content=content)

    return act


async def hang(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


def call_facts(
    name: str = "orders", *, budget: float = 10.0, route_budget: float = 10.0, max_body: int | None = None
) -> CallFacts:
    now = trio.current_time()
    trace = Trace("ab" * 16, "cd" * 8, "01", "vendor=1")
    request = RequestFacts(f"r-{name}", trace, "GET", "/r", "/r", now, now + route_budget)
    return CallFacts(name, "u", request, now + budget, Records(), max_body)


def asking(
    facts: CallFacts | None = None, target: str = "/x", *, method: str = "GET", **extra: object
) -> httpx.Request:
    extensions: dict[str, object] = {"target": target.encode(), **extra}
    if facts is not None:
        extensions[FACTS] = facts
    return httpx.Request(method, "http://upstream", extensions=extensions)


async def together(coalesce: Coalesce, *requests: httpx.Request) -> list[httpx.Response | Exception]:
    """Each request's answer or failure, all asked in the same moment."""
    results: list[httpx.Response | Exception | None] = [None] * len(requests)

    async def ask(place: int, request: httpx.Request) -> None:
        try:
            results[place] = await coalesce.handle_async_request(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            results[place] = error

    async with trio.open_nursery() as nursery:
        for place, request in enumerate(requests):
            nursery.start_soon(ask, place, request)
    assert None not in results
    return results  # type: ignore[return-value]  # no place is None


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
        ("traceparent", f"00-{'ef' * 16}-{'01' * 8}-01"),
        ("tracestate", f"seen={client}"),
        ("X-Envoy-Expected-Rq-Timeout-Ms", "250"),
    ]


async def test_the_flight_has_ids_of_its_own_and_names_no_client(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom, rng=random.Random(7)) as coalesce:
        requests = [
            httpx.Request("GET", "http://upstream/x", headers=spoken(ident, client))
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
    assert all(len(request.headers) == 9 for request in requests), "the callers' requests are as they were"


async def test_another_deadline_header_is_told_apart_from_the_question(autojump_clock) -> None:
    def budget(left: str) -> httpx.Request:
        return httpx.Request("GET", "http://upstream/x", headers={"X-Left": left})

    bottom = Bottom(answering())
    async with Coalesce(bottom, deadline_header="x-left") as coalesce:
        await together(coalesce, budget("1"), budget("2"))
        assert len(bottom.requests) == 1
    async with Coalesce(bottom, deadline_header=None) as coalesce:
        await together(coalesce, budget("1"), budget("2"))
        assert len(bottom.requests) == 3


async def test_the_flight_has_records_of_its_own_and_its_waiters_get_its_attempts(autojump_clock) -> None:
    bottom = Bottom(answering())
    first, second = call_facts("first"), call_facts("second")
    async with Coalesce(Attempt(bottom)) as coalesce:
        await together(coalesce, asking(first), asking(second))
    (sent,) = bottom.requests
    own = facts_of(sent)
    assert own is not None
    assert own not in (first, second)
    assert first.attempts == second.attempts == own.attempts != []
    assert first.attempts is not second.attempts
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
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(**{STATE: CallState()}), asking(**{STATE: CallState()}))
    (sent,) = bottom.requests
    assert STATE not in sent.extensions


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


# What is not shared


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "id=1")],
        [("Cache-Control", "private")],
        [("cache-control", "max-age=5, Private")],
        [("cache-control", "max-age=5"), ("cache-control", 'private="x-a", no-cache')],
    ],
)
async def test_an_answer_for_one_alone_goes_to_one_and_the_others_ask_for_themselves(
    headers: list[tuple[str, str]], autojump_clock
) -> None:
    bottom = Bottom(answering(headers=headers))
    async with Coalesce(bottom) as coalesce:
        facts = [call_facts(str(number)) for number in range(3)]
        requests = [asking(each) for each in facts]
        answers = await together(coalesce, *requests)
        assert trio.current_time() == facts[0].request.started_at + 2.0
        assert len({id(each) for each in answers}) == 3
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 2, 2, 0, 0)
    assert len(bottom.requests) == 3
    assert sum(each in requests for each in bottom.requests) == 2, "with their own requests"


@pytest.mark.parametrize("value", ["public", "max-age=5", 'no-cache="x-private"', "x-private", "privately"])
async def test_what_only_looks_like_private_is_shared(value: str, autojump_clock) -> None:
    bottom = Bottom(answering(headers=[("cache-control", value)]))
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(), asking())
    assert len(bottom.requests) == 1


class _Body(httpx.AsyncByteStream):
    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            await trio.sleep(1)
            yield b"12345"

    async def aclose(self) -> None:
        self.closed += 1


async def test_an_answer_that_nobody_has_read_is_read_once_and_left_coded(autojump_clock) -> None:
    bodies: list[_Body] = []

    async def act(request: httpx.Request) -> httpx.Response:
        bodies.append(_Body(2))
        return httpx.Response(200, headers={"content-encoding": "x"}, stream=bodies[-1], extensions={"a": 1})

    async with Coalesce(Bottom(act), max_body=10) as coalesce:
        answers = await together(coalesce, asking(), asking())
        assert [await each.aread() for each in answers] == [b"1234512345"] * 2
        assert [each.extensions for each in answers] == [{"a": 1}] * 2
        assert [body.closed for body in bodies] == [1]


async def test_an_answer_too_long_to_be_kept_is_closed_and_each_asks_for_itself(autojump_clock) -> None:
    bodies: list[_Body] = []

    async def act(request: httpx.Request) -> httpx.Response:
        bodies.append(_Body(3))
        return httpx.Response(200, stream=bodies[-1])

    async with Coalesce(Bottom(act), max_body=14) as coalesce:
        answers = await together(coalesce, asking(), asking())
        assert [body.closed for body in bodies] == [1, 0, 0]
        assert [await each.aread() for each in answers] == [b"123451234512345"] * 2
        assert coalesce.statistics().unshared == 2


async def test_an_answer_whose_bytes_are_gone_goes_to_one(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        response = httpx.Response(200, stream=_Body(1))
        await response.aread()
        return response

    bottom = Bottom(act)
    async with Coalesce(bottom) as coalesce:
        answers = await together(coalesce, asking(), asking())
    assert [each.content for each in answers] == [b"12345"] * 2
    assert len(bottom.requests) == 2


async def test_over_the_bound_of_flights_a_call_goes_by_itself(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom, max_flights=2) as coalesce:
        third = asking(target="/3")
        await together(coalesce, asking(target="/1"), asking(target="/2"), third, asking(target="/1"))
        statistics = coalesce.statistics()
    # Which of the targets comes third is up to the scheduler.
    assert statistics.flown == 2
    assert statistics.crowded == len(bottom.requests) - 2
    assert statistics.crowded + statistics.joined == 2


# Failures


async def test_a_failure_fails_all_each_with_an_exception_of_its_own(autojump_clock) -> None:
    original = ConnectionReset("host:80 broke", untouched=True)

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        failures = await together(coalesce, asking(), asking(), asking())
    assert len({id(each) for each in failures} | {id(original)}) == 4
    for each in failures:
        assert isinstance(each, ConnectionReset)
        assert (each.kind, each.detail, str(each), each.untouched) == (Kind.RESET, "host:80 broke", str(original), True)
        assert each.__cause__ is original


async def test_a_failure_that_nobody_shares_is_raised_as_it_is(autojump_clock) -> None:
    original = ConnectFailed("no")

    async def act(request: httpx.Request) -> httpx.Response:
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        with pytest.raises(ConnectFailed) as caught:
            await coalesce.handle_async_request(asking())
    assert caught.value is original
    assert original.__cause__ is None


@pytest.mark.parametrize(
    "original",
    [
        httpx.ReadTimeout("slow", request=asking()),
        RuntimeError("bug", 1),
        OSError(5, "five"),
        KeyError("k"),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
    ],
    ids=repr,
)
async def test_any_exception_can_be_copied(original: Exception, autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        failures = await together(coalesce, asking(), asking())
        assert [type(each) for each in failures] == [type(original)] * 2
        assert {str(each) for each in failures} == {str(original)}
        assert all(each.args == original.args and each is not original for each in failures)
        # A bug below fails the calls, not the layer.
        assert len(await together(coalesce, asking(), asking())) == 2


async def test_what_fails_while_a_flight_is_cancelled_ends_no_other(autojump_clock) -> None:
    async def fail_in_the_end(request: httpx.Request) -> httpx.Response:
        async def crash() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()
        raise AssertionError

    bottom = Bottom(fail_in_the_end)
    async with Coalesce(bottom) as coalesce:
        for _ in range(2):
            with trio.move_on_after(1) as scope:
                await coalesce.handle_async_request(asking())
            assert scope.cancelled_caught
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 2, 0, 0, 2, 0)


# Who leaves


async def ask_until(coalesce: Coalesce, request: httpx.Request, scope: trio.CancelScope) -> None:
    with scope:
        await coalesce.handle_async_request(request)


async def test_a_caller_that_leaves_leaves_the_others_their_flight(autojump_clock) -> None:
    bottom = Bottom(answering())
    leaver = trio.CancelScope()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(), leaver)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(coalesce.handle_async_request, asking())
        await trio.sleep(0.5)
        leaver.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert leaver.cancelled_caught
        assert coalesce.statistics() == CoalesceStatistics(1, 1, 1, 1, 0, 0, 0)
    assert len(bottom.requests) == 1


async def test_the_last_one_that_leaves_ends_the_flight_and_sees_its_end(autojump_clock) -> None:
    facts = call_facts("first"), call_facts("last")
    bottom = Bottom(hang)
    async with Coalesce(Attempt(bottom)) as coalesce, trio.open_nursery() as nursery:
        scopes = trio.CancelScope(), trio.CancelScope()
        for each, scope in zip(facts, scopes, strict=True):
            nursery.start_soon(ask_until, coalesce, asking(each), scope)
        await trio.sleep(1)
        scopes[0].cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 1
        scopes[1].cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 0
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 1, 0, 1, 0)
    assert facts[0].attempts == []
    assert [each.kind for each in facts[1].attempts] == [Kind.CLIENT_GONE]


async def test_a_call_that_comes_when_the_last_has_left_begins_a_new_flight(autojump_clock) -> None:
    async def leave_slowly(request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep(10)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
        return httpx.Response(200)

    bottom = Bottom(leave_slowly)
    scope = trio.CancelScope()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(), scope)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 1
        assert (await coalesce.handle_async_request(asking())).status_code == 200
    assert len(bottom.requests) == 2


async def test_a_flight_that_does_not_end_does_not_hold_the_last_caller(autojump_clock) -> None:
    async def stuck(request: httpx.Request) -> httpx.Response:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
        return httpx.Response(200)

    async with Coalesce(Bottom(stuck)) as coalesce:
        started = trio.current_time()
        with trio.move_on_after(2):
            await coalesce.handle_async_request(asking())
        assert trio.current_time() == started + 2 + CLOSE_SECONDS


async def test_a_crowd_that_leaves_at_once_costs_no_scan_each(autojump_clock) -> None:
    async with Coalesce(Bottom(hang)) as coalesce:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(2000):
                    nursery.start_soon(coalesce.handle_async_request, asking(call_facts()))
                await trio.testing.wait_all_tasks_blocked()
                assert coalesce.statistics().waiting == 2000
                scope.cancel(reason="shutdown")
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 1999, 0, 1, 0)


# Time


async def test_the_flights_deadline_is_the_latest_of_those_who_wait(autojump_clock) -> None:
    bottom = Bottom(hang)
    start = trio.current_time()
    async with Coalesce(bottom) as coalesce, trio.open_nursery() as nursery:

        def begin(budget: float) -> trio.CancelScope:
            scope = trio.CancelScope(deadline=trio.current_time() + budget)
            nursery.start_soon(ask_until, coalesce, asking(call_facts(budget=budget)), scope)
            return scope

        begin(5)
        await trio.testing.wait_all_tasks_blocked()
        own = facts_of(bottom.requests[0])
        assert own is not None
        assert own.deadline == start + 5
        begin(3)
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 5
        long = begin(9)
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 9
        begin(7)
        await trio.testing.wait_all_tasks_blocked()
        long.cancel(reason="client-gone")
        await trio.testing.wait_all_tasks_blocked()
        assert own.deadline == start + 7
        await trio.sleep_until(start + 6)
        assert bottom.in_flight == 1
        await trio.sleep_until(start + 7.001)
        assert bottom.in_flight == 0


@pytest.mark.parametrize(
    ("joins_after", "kind"),
    [(0.0, Kind.TIMEOUT), (4.0, Kind.TIMEOUT), (6.0, Kind.CANCELLED)],
    ids=["at once", "with more than half of its time left", "late"],
)
async def test_a_hanging_upstream_is_a_timeout_of_the_flight_as_it_is_of_a_call(
    joins_after: float, kind: Kind, autojump_clock
) -> None:
    facts = call_facts(budget=10, route_budget=10)
    async with Coalesce(Attempt(Bottom(hang))) as coalesce:
        with trio.move_on_at(facts.deadline):
            await trio.sleep(joins_after)
            await coalesce.handle_async_request(asking(facts))
    assert [each.kind for each in facts.attempts] == [kind]


async def test_a_hanging_upstream_opens_the_breaker_below_and_clients_that_leave_do_not(autojump_clock) -> None:
    async def ask(coalesce: Coalesce, target: str, leaves_after: float | None) -> None:
        facts = call_facts(budget=2, route_budget=2)
        scope = trio.CancelScope(deadline=facts.deadline)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_until, coalesce, asking(facts, target), scope)
            if leaves_after is not None:
                await trio.sleep(leaves_after)
                scope.cancel(reason="client-gone")

    for leaves_after, state in ((1.9, "closed"), (None, "open")):
        breaker = Breaker(Attempt(Bottom(hang)), min_requests=20)
        async with Coalesce(breaker) as coalesce, trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, coalesce, f"/{number % 20}", leaves_after)
        (origin,) = breaker.statistics().origins.values()
        assert origin.state == state, leaves_after


async def test_the_time_of_who_stays_decides_what_the_end_means(autojump_clock) -> None:
    """The caller with the most time leaves; the flight then ends by the time of the other."""
    stays, leaves = call_facts("stays", budget=2, route_budget=2), call_facts("leaves", budget=60, route_budget=60)
    gone = trio.CancelScope()
    async with Coalesce(Attempt(Bottom(hang))) as coalesce, trio.open_nursery() as nursery:
        nursery.start_soon(ask_until, coalesce, asking(leaves), gone)
        nursery.start_soon(ask_until, coalesce, asking(stays), trio.CancelScope(deadline=stays.deadline))
        await trio.sleep(1)
        gone.cancel(reason="client-gone")
    assert [each.kind for each in stays.attempts] == [Kind.TIMEOUT]


# Its own life


async def test_outside_of_its_block_it_says_so() -> None:
    with pytest.raises(NotRunningError, match="the coalescing layer"):
        await Coalesce(Bottom(hang)).handle_async_request(asking())


async def test_closing_it_cancels_what_is_under_way_and_tells_who_waits(autojump_clock) -> None:
    bottom = Bottom(hang)
    told: list[NotRunningError] = []
    async with trio.open_nursery() as nursery:
        async with Coalesce(bottom) as coalesce:

            async def ask() -> None:
                with pytest.raises(NotRunningError, match="closed while") as caught:
                    await coalesce.handle_async_request(asking())
                told.append(caught.value)

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 0
    assert len(set(map(id, told))) == 2


async def test_it_may_be_entered_again_and_ends_with_the_outermost(autojump_clock) -> None:
    async with Coalesce(Bottom(answering())) as coalesce:
        async with httpx.AsyncClient(transport=coalesce) as client:
            assert (await client.get("http://x/")).json() == {}
        await coalesce.handle_async_request(asking())
    with pytest.raises(NotRunningError):
        await coalesce.handle_async_request(asking())
    async with coalesce:
        await coalesce.handle_async_request(asking())


async def test_the_error_of_its_block_goes_on_bare(autojump_clock) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Coalesce(Bottom(answering())) as coalesce:
            await coalesce.handle_async_request(asking())
            raise ValueError("mine")


async def test_httpx_clients_get_what_they_know(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        if request.url.path == "/no":
            raise ConnectFailed("no")
        return httpx.Response(200, json={"path": request.url.path})

    bottom = Bottom(act)
    async with httpx.AsyncClient(transport=Coalesce(bottom)) as client:
        got: list[object] = []

        async def get(path: str) -> None:
            try:
                got.append((await client.get(f"http://x{path}")).json())
            except httpx.ConnectError as error:
                got.append(error.request.url.path)

        async with trio.open_nursery() as nursery:
            for path in ("/yes", "/no", "/yes", "/no"):
                nursery.start_soon(get, path)
    assert sorted(map(str, got)) == ["/no", "/no", "{'path': '/yes'}", "{'path': '/yes'}"]
    assert len(bottom.requests) == 2
