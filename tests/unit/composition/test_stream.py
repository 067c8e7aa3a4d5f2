"""Streamed compositions: one line per outcome, and the composed answer as the last line."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.composing import Handler, Scripted, answer, by_path, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition.stream import StreamLine, capacity, head_fields, run_stream
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs


async def lines(text: str, handlers: dict[str, Handler], deadline: float = 5.0) -> list[StreamLine]:
    compiled = plan(text)
    send, receive = trio.open_memory_channel[StreamLine](capacity(compiled))
    upstream = Scripted(by_path(handlers))
    callers = {"u": TransportCaller(upstream)}
    await run_stream(compiled, Inputs(path={"id": "1"}), facts(deadline), callers, Records(), send)
    return [line async for line in receive]


TEXT = """
[routes.calls.slow]
upstream = "u"
path = "/slow"
[routes.calls.quick]
upstream = "u"
path = "/quick"
optional = true
[routes.answer]
shape = "{s: slow, q: quick}"
"""
EACH = TEXT.partition("[routes.answer]")[0] + 'each = "slow"\n'


async def test_lines_are_sent_in_the_order_in_which_calls_end(autojump_clock: trio.abc.Clock) -> None:
    got = await lines(TEXT, {"/slow": answer(1, after=2), "/quick": answer(2, after=1)})
    assert [line.data for line in got] == [
        {"call": "quick", "value": 2},
        {"call": "slow", "value": 1},
        {"end": True, "completed": True, "answer": {"s": 1, "q": 2}},
    ]
    assert [line.terminal is None for line in got] == [True, True, False]


async def test_a_failed_optional_call_has_a_line_and_the_answer_is_incomplete(autojump_clock: trio.abc.Clock) -> None:
    got = await lines(TEXT, {"/slow": answer(1, after=1), "/quick": answer(0, status=503)})
    assert got[0].data == {"call": "quick", "failure": {"kind": "status", "status": 502, "received_status": 503}}
    assert got[-1].data == {"end": True, "completed": False, "answer": {"s": 1, "q": None}}


async def test_a_deciding_failure_before_any_value_is_the_only_line(autojump_clock: trio.abc.Clock) -> None:
    [only] = await lines(TEXT, {"/slow": answer({}, status=404), "/quick": answer(1, after=1)})
    assert only.terminal is not None
    assert only.terminal.failure is not None
    assert only.data["problem"]["status"] == 404


async def test_a_deciding_failure_after_a_value_is_the_last_line(autojump_clock: trio.abc.Clock) -> None:
    got = await lines(TEXT, {"/slow": answer({}, status=404, after=1), "/quick": answer(1)})
    assert [line.event for line in got] == ["quick", "end"]
    assert got[-1].data["problem"]["calls"][0]["name"] == "slow"


@pytest.mark.parametrize(
    ("combine", "sent"),
    [('"first"', ["quick", "slow", "end"]), ('"quorum"\nquorum = 2', ["end"])],
    ids=["the last candidate", "the first failure"],
)
async def test_the_outcome_that_ends_first_has_a_line_unless_the_problem_is_its_own(
    combine: str, sent: list[str], autojump_clock: trio.abc.Clock
) -> None:
    text = f"combine = {combine}\n" + TEXT.partition("[routes.answer]")[0]
    got = await lines(text, {"/slow": answer({}, status=404, after=1), "/quick": answer({}, status=500)})
    assert [line.event for line in got] == sent
    assert got[-1].data["problem"]["calls"][-1]["kind"] == "status"
    if len(got) > 1:
        assert got[1].data == {"call": "slow", "failure": {"kind": "status", "status": 404, "received_status": 404}}
        assert got[-1].data["problem"]["status"] == 502


async def test_items_have_a_line_for_each_index(autojump_clock: trio.abc.Clock) -> None:
    text = EACH.replace('path = "/quick"', 'path = "/i/{item}"')
    handlers = {"/slow": answer(["a", "b", "a"]), "/i/a": answer("A", after=2), "/i/b": answer("B", after=1)}
    got = await lines(text, handlers)
    assert [line.data for line in got[:-1]] == [
        {"call": "slow", "value": ["a", "b", "a"]},
        {"call": "quick", "index": 1, "value": "B"},
        {"call": "quick", "index": 0, "value": "A"},
        {"call": "quick", "index": 2, "value": "A"},
    ]


async def test_items_unfinished_at_the_deadline_have_a_failure_line(autojump_clock: trio.abc.Clock) -> None:
    text = EACH.replace('path = "/quick"', 'path = "/i/{item}"')
    handlers = {"/slow": answer(["a", "b"]), "/i/a": answer("A"), "/i/b": answer("B", after=9)}
    got = await lines(text, handlers, deadline=1)
    assert {"call": "quick", "index": 1, "failure": {"kind": "timeout", "status": 504}} in [line.data for line in got]
    assert got[-1].data["answer"] == {"slow": ["a", "b"], "quick": ["A", None]}


async def test_each_outcome_is_sent_as_a_line_at_once() -> None:
    upstream = ScriptedCaller({"/": Reply()})
    compiled = plan(TEXT)
    send, receive = trio.open_memory_channel[StreamLine](capacity(compiled))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_stream, compiled, Inputs(), facts(), {"u": upstream}, Records(), send)
        await wait_all_tasks_blocked()
        upstream.of("/quick").end()
        assert receive.receive_nowait().data == {"call": "quick", "value": 1}
        upstream.of("/slow").end()


async def test_a_line_is_written_as_ndjson_and_as_sse() -> None:
    line = StreamLine("a", {"call": "a", "value": "x\n\r\u2028"})
    assert json.loads(line.ndjson()) == line.data
    assert line.ndjson().count(b"\n") == 1
    event, data, *rest = line.sse().split(b"\n")
    assert (event, rest) == (b"event: a", [b"", b""])
    assert json.loads(data.removeprefix(b"data: ")) == line.data


async def test_a_closed_receiver_is_no_error() -> None:
    compiled = plan(TEXT)
    send, receive = trio.open_memory_channel[StreamLine](capacity(compiled))
    receive.close()

    await run_stream(compiled, Inputs(), facts(), {"u": ScriptedCaller({"/": Reply(0)})}, Records(), send)


def test_the_head_of_a_stream_has_the_fields_that_read_only_the_request() -> None:
    text = TEXT.replace("[routes.answer]", "[routes.answer]\nheaders = { x-a = 'one', x-b = '{id}', x-c = '{slow}' }")
    assert head_fields(plan(text), Inputs(path={"id": "7"})) == [("x-a", "one"), ("x-b", "7")]
