from __future__ import annotations

import gc
import math
import time
from email.utils import formatdate
from random import Random

import httpx
import pytest
import trio

from tests.support.scripts import Script, Step, Ticket, call_facts, call_request
from umbel.model import FACTS
from umbel.policy.budget import Budget, BudgetStatistics
from umbel.policy.retry import RETRY, RetryRules
from umbel.upstream.errors import BudgetSpent, ConnectFailed, ConnectionReset, Malformed, NameFailed, TlsFailed
from umbel.upstream.retry import Retry
from umbel.upstream.state import CallState, call_state, opened

REFUSED = Step(0.0, ConnectFailed("no"))
OK = Step(0.1, 200)


class Full(Random):
    """Draws all but the whole: a wait is as long as it may be."""

    def random(self) -> float:
        return 1.0


def retry(script: Script, **more: object) -> Retry:
    return Retry(script, rng=Full(), **more)


async def test_a_refused_call_is_made_again_after_the_back_off(autojump_clock) -> None:
    script = Script([REFUSED, OK])
    layer = retry(script)
    response = await layer.handle_async_request(call_request())
    assert (response.status_code, script.starts, script.causes) == (200, [0.0, 0.025], ["first", "retry"])
    statistics = layer.statistics()
    assert (statistics.retries, statistics.mended, statistics.late, statistics.blocked) == (1, 1, 0, 0)


async def test_the_wait_doubles_and_the_last_failure_stands(autojump_clock) -> None:
    errors = [ConnectFailed(str(number)) for number in range(6)]
    script = Script([Step(1.0, error) for error in errors])
    with pytest.raises(ConnectFailed) as caught:
        await retry(script, attempts=6).handle_async_request(call_request())
    assert caught.value is errors[-1]
    waits = [round(start - end, 9) for start, end in zip(script.starts[1:], _ends(script), strict=False)]
    assert waits == [0.025, 0.05, 0.1, 0.2, 0.25]


def _ends(script: Script) -> list[float]:
    return [each.ended_at or math.nan for each in script.made]


async def test_the_last_response_stands_when_retries_are_over(autojump_clock) -> None:
    script = Script([Step(0.0, 503), Step(0.0, 502), Step(0.0, 504)])
    layer = retry(script, attempts=3)
    response = await layer.handle_async_request(call_request())
    assert (response.status_code, response.content, len(script.made)) == (504, b"3", 3)
    assert (layer.statistics().retries, layer.statistics().mended) == (2, 0)


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [
        (200, 1),
        (404, 1),
        (429, 1),
        (500, 1),
        (502, 2),
        (503, 2),
        (504, 2),
        (ConnectFailed("x"), 2),
        (NameFailed("x"), 2),
        (TlsFailed("x"), 1),
        (Malformed("x"), 1),
        (BudgetSpent("x"), 1),
        (ConnectionReset("x", untouched=True), 2),
        (ConnectionReset("x"), 1),
        (httpx.ConnectError("x"), 2),
        (httpx.ReadTimeout("x"), 1),
        (httpx.ReadError("x"), 1),
        (httpx.DecodingError("x"), 1),
        (RuntimeError("a bug"), 1),
    ],
    ids=repr,
)
async def test_what_is_made_again(outcome: int | Exception, attempts: int, autojump_clock) -> None:
    script = Script([Step(0.0, outcome)])
    layer = Retry(script)
    if isinstance(outcome, int):
        assert (await layer.handle_async_request(call_request())).status_code == outcome
    else:
        with pytest.raises(type(outcome)):
            await layer.handle_async_request(call_request())
    assert len(script.made) == attempts


@pytest.mark.parametrize(
    ("method", "more", "attempts"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("PUT", {"content": b"whole"}, 2),
        ("DELETE", {}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("TRACE", {}, 1),
        ("POST", {"headers": {"Idempotency-Key": "k"}, "content": b"whole"}, 2),
        ("PUT", {"stream": True}, 1),
        ("POST", {"headers": {"Idempotency-Key": "k"}, "stream": True}, 1),
    ],
)
async def test_only_what_may_be_repeated_and_can_be_is(method: str, more: dict, attempts: int, autojump_clock) -> None:
    async def stream():
        yield b"piece"

    if more.pop("stream", False):
        more["content"] = stream()
    script = Script([Step(0.0, ConnectionReset("before a byte of the answer", untouched=True))])
    with pytest.raises(ConnectionReset):
        await Retry(script).handle_async_request(call_request(method, **more))
    assert len(script.made) == attempts


@pytest.mark.parametrize("error", [ConnectFailed("no"), NameFailed("no")], ids=repr)
async def test_any_method_is_made_again_of_which_no_byte_was_sent(error: Exception, autojump_clock) -> None:
    script = Script([Step(0.0, error), OK])
    assert (await retry(script).handle_async_request(call_request("POST", content=b"once"))).status_code == 200
    assert len(script.made) == 2


async def test_a_body_that_is_a_stream_is_not_sent_again_even_then(autojump_clock) -> None:
    async def stream():
        yield b"piece"

    script = Script([REFUSED])
    with pytest.raises(ConnectFailed):
        await retry(script).handle_async_request(call_request("POST", content=stream()))
    assert len(script.made) == 1


async def test_a_failure_of_tls_may_come_after_the_request_was_sent(autojump_clock) -> None:
    script = Script([Step(0.0, TlsFailed("no"))])
    with pytest.raises(TlsFailed):
        await retry(script).handle_async_request(call_request("POST", content=b"once"))
    assert len(script.made) == 1


async def test_the_list_of_kinds_and_statuses_is_the_users(autojump_clock) -> None:
    script = Script([Step(0.0, 500), Step(0.0, 429), Step(0.0, 503)])
    response = await Retry(script, attempts=9, on=[500, 429]).handle_async_request(call_request())
    assert (response.status_code, len(script.made)) == (503, 3)


async def test_a_calls_own_rules_go_before_the_layers(autojump_clock) -> None:
    script = Script([REFUSED])
    request = call_request()
    request.extensions[RETRY] = RetryRules(attempts=4)
    with pytest.raises(ConnectFailed):
        await Retry(script, attempts=1).handle_async_request(request)
    assert len(script.made) == 4


# Time


async def test_no_wait_goes_past_the_deadline_and_what_is_there_stands(autojump_clock) -> None:
    script = Script([Step(1.0, 503)])
    layer = retry(script)
    response = await layer.handle_async_request(call_request(deadline=1.025))
    assert (response.status_code, len(script.made), trio.current_time()) == (503, 1, 1.0)
    assert (layer.statistics().late, layer.statistics().retries) == (1, 0)
    script = Script([Step(1.0, 503)])
    await retry(script).handle_async_request(call_request(deadline=1.026))
    assert len(script.made) == 2


@pytest.mark.parametrize(("after", "start"), [("2", 3.0), ("0", 1.025), (" 2 ", 3.0)])
async def test_the_upstreams_retry_after_is_waited_for(after: str, start: float, autojump_clock) -> None:
    script = Script([Step(1.0, 503, {"retry-after": after}), OK])
    await retry(script).handle_async_request(call_request(deadline=10.0))
    assert script.starts == [0.0, start]


@pytest.mark.parametrize("after", ["-1", "1.5", "soon", "2 s", "1e3", "Sun, 99 Nov 2026 10:00:00 GMT", ""])
async def test_a_retry_after_that_says_nothing_is_not_there(after: str, autojump_clock) -> None:
    script = Script([Step(0.0, 503, {"retry-after": after}), OK])
    await retry(script).handle_async_request(call_request(deadline=10.0))
    assert script.starts == [0.0, 0.025]


async def test_a_date_is_meant_by_the_upstreams_own_clock(autojump_clock) -> None:
    headers = {"date": "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after": "Sun, 06 Nov 1994 08:49:40 GMT"}
    script = Script([Step(0.0, 503, headers), OK])
    await retry(script).handle_async_request(call_request(deadline=10.0))
    assert script.starts == [0.0, 3.0]


async def test_a_date_in_the_past_asks_for_nothing(autojump_clock) -> None:
    script = Script([Step(0.0, 503, {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}), OK])
    await retry(script).handle_async_request(call_request(deadline=10.0))
    assert script.starts == [0.0, 0.025]


async def test_a_date_without_the_upstreams_clock_is_meant_by_ours(autojump_clock) -> None:
    in_an_hour = {"retry-after": formatdate(time.time() + 3600, usegmt=True)}
    script = Script([Step(0.0, 503, in_an_hour)])
    response = await retry(script).handle_async_request(call_request(deadline=3000.0))
    assert (response.status_code, len(script.made)) == (503, 1)
    script = Script([Step(0.0, 503, in_an_hour), OK])
    await retry(script).handle_async_request(call_request(deadline=4000.0))
    assert 3500 < script.starts[-1] < 3700


async def test_a_retry_after_that_does_not_fit_lets_the_answer_stand_at_once(autojump_clock) -> None:
    for deadline in (5.0, None):
        script = Script([Step(1.0, 503, {"retry-after": "999999999"})])
        began = trio.current_time()
        response = await retry(script).handle_async_request(call_request(deadline=deadline))
        assert (response.status_code, len(script.made), trio.current_time() - began) == (503, 1, 1.0)


# Budget and breaker


async def test_over_the_budget_the_first_answer_stands(autojump_clock) -> None:
    script = Script([Step(1.0, 503)])
    budget = Budget(0.2, 3)
    layer = retry(script, budget=budget)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(layer.handle_async_request, call_request())
    # All fail in the same moment: the first four are 20 % of twenty, each that comes after them is one too many.
    assert len(script.made) == 24
    statistics = budget.statistics()
    assert (statistics.active, statistics.extra) == (0, 0)
    assert statistics.denied == 16
    assert layer.statistics().budgets == {"*": statistics}


async def test_a_retry_has_its_place_in_the_budget_while_it_waits(autojump_clock) -> None:
    budget = Budget(0.0, 1)
    layer = retry(Script([REFUSED, OK]), budget=budget, backoff=1.0, max_backoff=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layer.handle_async_request, call_request())
        await trio.sleep(0.5)
        assert (budget.statistics().active, budget.statistics().extra) == (1, 1)
        with pytest.raises(ConnectFailed):
            await retry(Script([REFUSED]), budget=budget).handle_async_request(call_request())
        await trio.sleep(0.55)
        assert budget.statistics().extra == 1, "while the attempt is under way too"
    assert budget.statistics() == BudgetStatistics(active=0, extra=0, limit=1, denied=1)


async def test_without_a_budget_each_origin_has_its_own(autojump_clock) -> None:
    layer = Retry(Script([REFUSED]))
    for host in ("a", "b"):
        with pytest.raises(ConnectFailed):
            await layer.handle_async_request(httpx.Request("GET", f"http://{host}/"))
    assert {name: each.limit for name, each in layer.statistics().budgets.items()} == {"http://a": 3, "http://b": 3}


async def test_two_layers_of_one_budget_count_a_call_once(autojump_clock) -> None:
    budget = Budget()

    class Look(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert budget.statistics().active == 1
            return httpx.Response(200)

    await Retry(Retry(Look(), budget=budget), budget=budget).handle_async_request(call_request())
    assert budget.statistics().active == 0


async def test_with_the_breaker_open_nothing_is_made_again(autojump_clock) -> None:
    script = Script([Step(1.0, 503)])
    layer = retry(script)
    request = call_request()
    request, state = opened(request)
    state.ticket = Ticket(opens_at=1.0)
    assert (await layer.handle_async_request(request)).status_code == 503
    assert (len(script.made), layer.statistics().blocked) == (1, 1)


@pytest.mark.parametrize("step", [Step(1.0, 503), Step(1.0, 503, open=True), Step(1.0, ConnectFailed("no"))])
async def test_a_breaker_that_opens_during_the_wait_stops_the_retry(step: Step, autojump_clock) -> None:
    script = Script([step])
    layer = retry(script)
    request = call_request()
    request, state = opened(request)
    state.ticket = Ticket(opens_at=1.01)
    if step.outcome == 503:
        response = await layer.handle_async_request(request)
        assert (await response.aread()) == (b"body" if step.open else b"1"), "it can still be read"
        await response.aclose()
    else:
        with pytest.raises(ConnectFailed):
            await layer.handle_async_request(request)
    assert (len(script.made), layer.statistics().blocked, layer.statistics().retries) == (1, 1, 0)


# Responses that are streams


async def test_a_response_that_is_replaced_is_closed_before_the_next_attempt(autojump_clock) -> None:
    class Look(Script):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert all(stream.closed for stream in self.streams)
            return await super().handle_async_request(request)

    script = Look([Step(0.0, 503, open=True), Step(0.0, 200, open=True)])
    response = await Retry(script).handle_async_request(call_request())
    assert (response.status_code, [stream.closed for stream in script.streams]) == (200, [True, False])
    assert await response.aread() == b"body"


async def test_cancelled_while_it_waits_it_closes_what_it_holds(autojump_clock) -> None:
    script = Script([Step(0.0, 503, {"retry-after": "9"}, open=True)])
    budget = Budget()
    with trio.move_on_after(1) as scope:
        await Retry(script, budget=budget).handle_async_request(call_request(deadline=20.0))
    assert scope.cancelled_caught
    assert [stream.closed for stream in script.streams] == [True]
    assert (budget.statistics().active, budget.statistics().extra) == (0, 0)


# As a layer


async def test_any_httpx_user_can_take_it_alone(autojump_clock) -> None:
    answers = iter([503, 200])
    mock = httpx.MockTransport(lambda request: httpx.Response(next(answers), json={"a": 1}))
    async with httpx.AsyncClient(transport=Retry(mock)) as client:
        response = await client.get("http://x/")
    assert (response.status_code, response.json()) == (200, {"a": 1})


async def test_a_failed_call_leaves_no_garbage_behind(autojump_clock) -> None:
    layer = Retry(Script([Step(0.0, ConnectFailed("no"))]), attempts=1)
    request = call_request()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await layer.handle_async_request(request)
        unreachable = [each for each in _collected() if isinstance(each, ConnectFailed)]
        assert unreachable == []
    finally:
        gc.enable()


def _collected() -> list[object]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_numbers_and_names_without_a_meaning_are_refused() -> None:
    for more in ({"attempts": 0}, {"backoff": -1}, {"on": ["timeout"]}, {"on": [200]}):
        with pytest.raises(ValueError, match=r"at least 1|not negative|cannot be retried on"):
            Retry(Script([OK]), **more)


async def test_the_facts_of_a_call_are_passed_on_and_its_state_is_gone_afterwards(autojump_clock) -> None:
    script = Script([REFUSED, OK])
    facts = call_facts(1.0)
    request = httpx.Request("GET", "http://x/", extensions={FACTS: facts})
    await Retry(script).handle_async_request(request)
    assert request.extensions == {FACTS: facts}


async def test_one_request_sent_by_many_tasks_at_once_is_a_call_of_its_own_each_time(autojump_clock) -> None:
    seen: list[CallState | None] = []

    class Failing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(call_state(request))
            await trio.sleep(1)
            return httpx.Response(503)

    layer = Retry(Failing(), attempts=2, on=[503], budget=Budget(100.0))
    shared = httpx.Request("GET", "http://x/")
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(layer.handle_async_request, shared)
    assert len(seen) == 20
    assert len({id(state) for state in seen}) == 10
    assert shared.extensions == {}
