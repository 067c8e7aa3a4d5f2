"""Bodies of many values, which are decoded in a thread while the composition goes on."""

from __future__ import annotations

import pytest
import trio

from tests.support.composition.composing import calls, compose, facts, plan
from tests.support.composition.scripted_calls import Reply, ScriptedCaller
from tests.support.logs.records import Records
from umbel.composition import engine
from umbel.composition.call_result import CallRules, DecodedBody
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan_run import PlanRun
from umbel.core.call import Call
from umbel.core.failure_kinds import Kind
from umbel.core.inbound import ClientGoneError
from umbel.core.model import Inputs

FIRST = '[[routes]]\npath = "/r"\ncombine = "first"\n'
LARGE = b'"large"' + b" " * engine.INLINE_MAX
SECONDS = 100.0
"""How long the decoding of a large body takes: longer than any deadline of these tests."""


class Decoding:
    """The decoding of large bodies, which takes ``seconds`` each instead of a thread."""

    def __init__(self) -> None:
        self.seconds = SECONDS
        self.error: Exception | None = None
        self.abandoned: list[tuple[str, float]] = []
        """The calls whose decoding was cancelled, and when."""

    async def decode(self, rules: CallRules, call: Call) -> DecodedBody:
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.abandoned.append((rules.name, trio.current_time()))
            raise
        if self.error is not None:
            raise self.error
        return ("decoded",)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    """Have bodies that are too large for a callback decoded by a ``Decoding``."""
    found = Decoding()
    monkeypatch.setattr(engine, "needs_decode_thread", lambda rules, call: len(call.content) > engine.INLINE_MAX)
    monkeypatch.setattr(engine, "decoded_in_thread", found.decode)
    return found


@pytest.mark.parametrize(
    ("text", "b", "end"),
    [(calls("ab"), Reply(2.0, 500), Kind.STATUS), (FIRST + calls("ab"), Reply(2.0), 1)],
    ids=["a required call failed", "the first success"],
)
async def test_a_decision_does_not_wait_for_the_decoding_of_a_body(
    text: str, b: Reply, end: object, decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    ran = await compose(text, ScriptedCaller({"/a": Reply(1.0, content=LARGE), "/b": b}))
    assert (ran.kinds, ran.elapsed) == ({"a": Kind.CANCELLED, "b": end}, 2.0)
    assert [name for name, _ in decoding.abandoned] == ["a"]


async def test_the_deadline_does_not_wait_for_the_decoding_of_a_body(
    decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    ran = await compose(calls("a"), ScriptedCaller({"/a": Reply(1.0, content=LARGE)}), deadline=2.0)
    assert (ran.kinds, ran.elapsed) == ({"a": Kind.TIMEOUT}, 2.0)
    assert [name for name, _ in decoding.abandoned] == ["a"]


async def test_a_client_that_leaves_ends_the_decoding_of_a_body(
    decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    callers, started = {"u": ScriptedCaller({"/a": Reply(1.0, content=LARGE)})}, trio.current_time()
    running = PlanRun(plan(calls("a")), Inputs(), facts(), callers, Records())
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await trio.sleep(2)
            running.client_gone()

        nursery.start_soon(leave)
        with pytest.raises(ClientGoneError):
            await running.run()
    assert decoding.abandoned == [("a", started + 2)]


async def test_a_required_call_that_fails_ends_a_gather_block_while_a_body_is_decoded(
    decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    upstream, started = ScriptedCaller({"/a": Reply(1.0, content=LARGE), "/b": Reply(2.0, 500)}), trio.current_time()
    with pytest.raises(CompositionFailedError):
        async with Compose({"u": upstream}, Inputs(), facts(), Records()).gather() as g:
            g.get("u", "/a")
            g.get("u", "/b")
    assert trio.current_time() == started + 2


async def test_other_calls_start_while_a_body_is_decoded(decoding: Decoding, autojump_clock: trio.abc.Clock) -> None:
    decoding.seconds = 3.0
    text = calls("ab") + '[routes.calls.c]\nupstream = "u"\npath = "/c/{b}"\n'
    ran = await compose(text, ScriptedCaller({"/": Reply(1.0), "/a": Reply(0.5, content=LARGE)}))
    assert (ran.result.answer, ran.elapsed) == ({"a": "decoded", "b": 1, "c": 1}, 3.5)
    outcomes = {outcome.call: outcome for outcome in ran.result.outcomes}
    assert outcomes["c"].started_at == outcomes["b"].ended_at


async def test_a_required_item_that_fails_abandons_the_decoding_of_its_siblings(
    decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    text = FIRST + calls("b") + '[routes.calls.a]\nupstream = "u"\npath = "/a/{item}"\neach = "`[1, 2]`"\n'
    started = trio.current_time()
    upstream = ScriptedCaller({"/a/1": Reply(1.0, content=LARGE), "/a/2": Reply(2.0, 500), "/b": Reply(3.0)})
    ran = await compose(text, upstream)
    assert (ran.kinds, ran.elapsed) == ({"a": Kind.STATUS, "b": 1}, 3.0)
    assert decoding.abandoned == [("a", started + 2)]


async def test_a_bug_in_the_decoding_is_raised_by_the_composition(
    decoding: Decoding, autojump_clock: trio.abc.Clock
) -> None:
    decoding.seconds, decoding.error = 0.5, ZeroDivisionError()
    callers = {"u": ScriptedCaller({"/a": Reply(1.0, content=LARGE), "/b": Reply()})}
    with pytest.raises(ZeroDivisionError):
        await PlanRun(plan(calls("ab")), Inputs(), facts(), callers, Records()).run()
