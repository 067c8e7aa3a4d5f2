"""Callbacks of calls: what they settle, when they wake the engine's task, and what ends the composition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import calls, compose, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.answer.result import Result
from umbel.composition.engine import INLINE_MAX
from umbel.composition.plan_run import Observer, run
from umbel.composition.request.request_template import RequestTemplate
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs, Outcome

FIRST = '[[routes]]\npath = "/r"\ncombine = "first"\n'
BAD_JSON = b"{"
LARGE_BAD_JSON = b"{" + b" " * INLINE_MAX


class Steps(trio.abc.Instrument):
    """Counts the steps of one task."""

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


class Running:
    """A composition that runs in a task of its own."""

    def __init__(self, upstream: ScriptedCaller) -> None:
        self.upstream = upstream
        self.records = Records()
        self.steps = Steps()
        self.scope = trio.CancelScope()
        self.result: Result | None = None
        self.error: Exception | None = None

    async def run(self, text: str, observer: Observer | None) -> None:
        self.steps.task = trio.lowlevel.current_task()
        with self.scope:
            try:
                self.result = await run(plan(text), Inputs(), facts(), {"u": self.upstream}, self.records, observer)
            except ZeroDivisionError as error:
                self.error = error

    @property
    def recorded(self) -> dict[str, Any]:
        """The values, or the kinds of failures, of the settled calls."""
        outcomes = [event.outcome for event in self.records.calls]
        return {each.call: each.failure.kind if each.failure else each.value for each in outcomes}

    def end(self, *names: str) -> None:
        """End these calls in one batch."""
        for name in names:
            self.upstream.of(f"/{name}").end()


@asynccontextmanager
async def running(text: str, replies: dict[str, Reply], observer: Observer | None = None) -> AsyncIterator[Running]:
    """Run a composition up to its first wait. Leaving the block waits for its end and checks that all calls ended."""
    composition = Running(ScriptedCaller({"/": Reply(), **replies}))
    trio.lowlevel.add_instrument(composition.steps)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(composition.run, text, observer)
            await wait_all_tasks_blocked()
            composition.steps.count = 0
            yield composition
    finally:
        trio.lowlevel.remove_instrument(composition.steps)
    assert not composition.upstream.under_way
    assert composition.records.ended_calls == sorted(call.name for call in plan(text).calls)


async def test_calls_that_end_in_one_turn_wake_the_engine_at_most_once() -> None:
    async with running(calls("abcdefghij"), {}) as composition:
        composition.end(*"abcde")
        await wait_all_tasks_blocked()
        assert composition.steps.count == 0, "there was no work for the task"
        assert composition.recorded == dict.fromkeys("abcde", 1)
        composition.end(*"fghij")
    assert composition.steps.count == 1
    assert composition.result is not None
    assert composition.result.answer == dict.fromkeys("abcdefghij", 1)


async def test_calls_that_do_not_wait_need_no_tasks() -> None:
    async with running(calls("abc"), {}) as composition:
        task = composition.steps.task
        assert task is not None
        assert not task.child_nurseries
        composition.end(*"abc")


async def test_calls_that_end_in_start_end_the_composition_at_once() -> None:
    async with running(calls("abc"), {"/": Reply(0)}) as composition:
        assert composition.result is not None
        assert composition.result.answer == dict.fromkeys("abc", 1)


async def test_a_small_body_is_decoded_in_the_callback_and_a_large_one_later() -> None:
    at_most, more = b"1" + b" " * (INLINE_MAX - 1), b"1" + b" " * INLINE_MAX
    async with running(calls("abc"), {"/a": Reply(content=at_most), "/b": Reply(content=more)}) as composition:
        composition.end("a", "b")
        assert list(composition.recorded) == ["a"]
        await wait_all_tasks_blocked()
        assert list(composition.recorded) == ["a", "b"]
        composition.end("c")


async def test_other_tasks_run_between_the_decoding_of_two_large_bodies() -> None:
    large = Reply(content=b"1" + b" " * INLINE_MAX)
    async with running(calls("abcd"), {"/a": large, "/b": large, "/c": large}) as composition:
        composition.end(*"abc")
        taken = set()
        while len(composition.recorded) < 3:
            await trio.lowlevel.checkpoint()
            taken.add(len(composition.recorded))
        assert taken & {1, 2}  # trio may run this task or the engine's first in a turn.
        composition.end("d")


@pytest.mark.parametrize("text", [calls("abc"), FIRST + calls("abc")], ids=["all", "first"])
async def test_a_call_with_a_large_body_is_cut_if_another_decides_in_that_turn(text: str) -> None:
    deciding = Reply(status=500) if text.startswith("[routes") else Reply()
    async with running(text, {"/a": Reply(content=LARGE_BAD_JSON), "/b": deciding}) as composition:
        composition.end("a", "b")
    assert composition.recorded["a"] is Kind.CANCELLED
    assert composition.upstream.of("/a").cancelled is None, "it had its response, so it was not cancelled"


@pytest.mark.parametrize("content", [BAD_JSON, LARGE_BAD_JSON], ids=["small", "large"])
async def test_a_bad_body_of_a_required_call_ends_the_composition_at_once(
    content: bytes, autojump_clock: trio.abc.Clock
) -> None:
    upstream = ScriptedCaller({"/": Reply(), "/b": Reply(1.0, content=content)})
    ran = await compose(calls("abc"), upstream)
    assert ran.kinds == {"a": Kind.CANCELLED, "b": Kind.BAD_BODY, "c": Kind.CANCELLED}
    assert [call.cancelled for call in upstream.calls] == ["decided", None, "decided"]
    assert ran.elapsed == 1.0


async def test_a_deciding_failure_keeps_later_results_of_the_same_batch() -> None:
    async with running(calls("abcd"), {"/b": Reply(status=500), "/c": Reply(status=404)}) as composition:
        composition.end("b", "a", "c")
        assert composition.recorded == {"b": Kind.STATUS, "a": 1, "c": Kind.STATUS}
        assert composition.upstream.of("/d").under_way, "the task cuts it later"
    result = composition.result
    assert result is not None
    assert result.failure is not None
    assert result.failure.received_status == 500, "the first failure counts"
    assert composition.recorded["d"] is Kind.CANCELLED


async def test_with_first_the_first_value_cuts_the_other_calls_at_once(autojump_clock: trio.abc.Clock) -> None:
    upstream = ScriptedCaller({"/a": Reply(3.0), "/b": Reply(1.0), "/c": Reply(9.0, waits=1)})
    ran = await compose(FIRST + calls("abc"), upstream)
    assert ran.result.answer == 1
    assert ran.kinds == {"a": Kind.CANCELLED, "b": 1, "c": Kind.CANCELLED}
    assert ran.elapsed == 1.0


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_no_call_is_sent_if_a_call_fails_before_its_start(order: str) -> None:
    upstream = ScriptedCaller({"/": Reply()})
    ran = await compose(calls(order).replace('path = "/b"', 'path = "/b/{headers.x_missing}"'), upstream)
    assert ran.kinds == {"a": Kind.CANCELLED, "b": Kind.BAD_REQUEST}
    assert not upstream.started


async def test_a_call_that_decides_in_start_prevents_the_start_of_later_calls() -> None:
    upstream = ScriptedCaller({"/": Reply(), "/b": Reply(0, status=500)})
    ran = await compose(calls("abc"), upstream)
    assert ran.kinds == {"a": Kind.CANCELLED, "b": Kind.STATUS, "c": Kind.CANCELLED}
    assert upstream.targets == ["/a", "/b"]
    assert ran.outcomes["c"].started_at is None


async def test_a_call_that_decides_in_send_prevents_the_send_of_later_calls() -> None:
    upstream = ScriptedCaller({"/": Reply(), "/b": Reply(status=500, fails_to_depart=True)})
    ran = await compose(calls("abc"), upstream)
    assert ran.kinds == {"a": Kind.CANCELLED, "b": Kind.STATUS, "c": Kind.CANCELLED}
    assert [call.sent for call in upstream.started] == [True, True, False]


@pytest.mark.parametrize("cancel_first", [False, True], ids=["before it", "after it"])
async def test_results_in_the_turn_of_a_cancel_are_kept(cancel_first: bool) -> None:
    async with running(calls("abc"), {}) as composition:
        if cancel_first:
            composition.scope.cancel(reason="client-gone")
        composition.end("a", "b")
        composition.scope.cancel(reason="client-gone")
    assert composition.recorded == {"a": 1, "b": 1, "c": Kind.CLIENT_GONE}
    assert composition.upstream.of("/c").cancelled == "client-gone"


async def test_a_result_in_the_turn_of_the_deadline_is_a_value_or_a_timeout(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(
        calls("ab", a="optional = true", b="optional = true"), ScriptedCaller({"/a": Reply(5.0), "/b": Reply()})
    )
    # trio may run the result or the deadline first in the turn.
    assert ran.kinds["a"] in (1, Kind.TIMEOUT)
    assert ran.kinds["b"] is Kind.TIMEOUT


async def test_a_cancel_before_the_start_sends_nothing_and_records_every_call() -> None:
    upstream, records = ScriptedCaller({"/": Reply()}), Records()
    with trio.CancelScope() as scope:
        scope.cancel(reason="client-gone")
        await run(plan(calls("ab")), Inputs(), facts(), {"u": upstream}, records)
    assert not upstream.calls
    assert [(each.outcome.call, each.outcome.failure and each.outcome.failure.kind) for each in records.calls] == [
        ("a", Kind.CLIENT_GONE),
        ("b", Kind.CLIENT_GONE),
    ]


async def test_a_call_gets_a_task_each_time_that_it_waits(autojump_clock: trio.abc.Clock) -> None:
    async with running(calls("abc"), {"/a": Reply(1.0, waits=2), "/b": Reply(1.0)}) as composition:
        assert composition.steps.task is not None
        (nursery,) = composition.steps.task.child_nurseries
        assert len(nursery.child_tasks) == 1
        composition.upstream.of("/c").reply = Reply(1.0)
        composition.upstream.of("/c").resume()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
    assert composition.result is not None
    assert composition.result.answer == {"a": 1, "b": 1, "c": 1}
    assert [outcome.ended_at for outcome in composition.result.outcomes] == [2.0, 1.0, 1.0]


class _Untidy(httpx.AsyncBaseTransport):
    """A transport whose cleanup after a cancel takes half a second."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
        raise AssertionError


async def test_at_the_deadline_no_call_waits_for_the_cleanup_of_another(autojump_clock: trio.abc.Clock) -> None:
    text = '[upstreams.u]\nurls = ["http://u"]\n[upstreams.w]\nurls = ["http://w"]\n[[routes]]\npath = "/r"\n'
    compiled = plan(text + calls("ab").replace('"u"', '"w"', 1))
    upstream = ScriptedCaller({"/": Reply()})
    await run(compiled, Inputs(), facts(1.0), {"u": upstream, "w": TransportCaller(_Untidy())}, Records())
    assert upstream.of("/b").ended_at == 1.0
    assert trio.current_time() == 1.5


@pytest.mark.parametrize("what", [Reply(1.0, error=ZeroDivisionError()), Reply(0, error=ZeroDivisionError())])
async def test_a_bug_in_a_call_fails_only_that_call_with_kind_internal(
    what: Reply, autojump_clock: trio.abc.Clock
) -> None:
    ran = await compose(calls("abc", b="optional = true"), ScriptedCaller({"/": Reply(2.0), "/b": what}))
    assert ran.kinds == {"a": 1, "b": Kind.INTERNAL, "c": 1}
    assert [(note.event, type(note.error)) for note in ran.recorder.logged] == [("call.crashed", ZeroDivisionError)]


@pytest.mark.parametrize(
    "where", [(RequestTemplate, "prepare"), (ScriptedCaller, "new_call")], ids=lambda each: each[1]
)
async def test_a_bug_before_the_start_of_a_call_fails_only_that_call(
    where: tuple[type, str], monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    usual = getattr(*where)
    made: list[object] = []

    def fails_the_second(*given: object) -> object:
        made.append(given)
        if len(made) == 2:
            raise ZeroDivisionError
        return usual(*given)

    monkeypatch.setattr(*where, fails_the_second)
    ran = await compose(calls("abc", b="optional = true"), ScriptedCaller({"/": Reply(1.0)}))
    assert ran.kinds == {"a": 1, "b": Kind.INTERNAL, "c": 1}
    assert [note.event for note in ran.recorder.logged] == ["call.crashed"]


@pytest.mark.parametrize("ending", ["bc", "abc"], ids=["one is under way", "it is the last"])
async def test_a_bug_in_a_callback_ends_the_composition_and_not_the_calling_task(ending: str) -> None:
    class Broken(Observer):
        def call_ended(self, outcome: Outcome, *, decisive: bool) -> None:
            if outcome.call == "c":
                raise ZeroDivisionError

    async with running(calls("abc"), {}, Broken()) as composition:
        composition.end(*ending)
    assert isinstance(composition.error, ZeroDivisionError)
    assert composition.recorded == {"b": 1, "c": 1, "a": 1 if "a" in ending else Kind.CANCELLED}


async def test_thousands_of_calls_run_at_once(autojump_clock: trio.abc.Clock) -> None:
    text = "\n".join(f'[routes.calls.c{n}]\nupstream = "u"\npath = "/{n}"' for n in range(2000))
    upstream = ScriptedCaller({"/": Reply(1.0)})
    ran = await compose(text, upstream)
    assert len(ran.result.answer) == len(upstream.calls) == 2000
    assert ran.elapsed == 1.0


async def test_no_call_is_sent_if_a_required_call_fails_in_start(autojump_clock: trio.abc.Clock) -> None:
    text = calls("abc")
    async with running(text, {"/b": Reply(0, error=httpx.ConnectError("no"))}) as composition:
        pass
    assert composition.result is not None and composition.result.failure is not None
    assert composition.upstream.targets == ["/a", "/b"]
    assert [call.sent for call in composition.upstream.started] == [False, False]
    assert composition.upstream.of("/a").cancelled == "decided"
