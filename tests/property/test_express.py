"""Random plans against random upstreams, by the express way and by the ordinary one: the same comes of both.

On the virtual clock no two things happen at once, as long as no two calls take equally long; then nothing hangs on the
order in which the scheduler runs its tasks, but at the deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.property.test_composition import DEADLINE, plans, values
from tests.support.bothways import BUSY, ONE, Case, Step, plain_result, seen
from tests.support.composing import facts
from tests.support.flights import Flown, Lands
from tests.support.rawserver import Peer, response
from tests.support.records import Records
from umbel.composition.dag import Plan
from umbel.composition.run import run
from umbel.model import Inputs
from umbel.upstream.errors import ConnectionReset, Malformed

NAMES = "abcde"
TRIES = 15
BUSY_MACHINE = [HealthCheck.too_slow]


def delay(name: str, tenths: int) -> float:
    """Its own for each name: no sum of some is the sum of others, or a round number."""
    return tenths / 10 + 1e-6 * 11 ** NAMES.index(name)


@st.composite
def scripts(draw: st.DrawFn) -> dict[str, Lands]:
    script = {}
    for name in NAMES:
        tenths = draw(st.sampled_from([0, 1, 3, 5, 9, 15]))
        carried = draw(st.sampled_from([None, None, None, 0.1]))
        what = draw(st.sampled_from(["value", "value", "value", "status", "error", "bug", "hang"]))
        script[f"/{name}"] = Lands(
            math.inf if what == "hang" else delay(name, tenths),
            status=draw(st.sampled_from([204, 301, 404, 409, 500, 503])) if what == "status" else 200,
            value=draw(values),
            error=draw(st.sampled_from([ConnectionReset("reset"), Malformed("no")])) if what == "error" else None,
            pieces=draw(st.integers(1, 3)),
            sent_off=draw(st.integers(0, 4)) > 0,
            in_air=carried is not None or draw(st.integers(0, 4)) > 0,
            then_carried=carried,
            bug="land" if what == "bug" and carried is None else "",
        )
    return script


async def fly(plan: Plan, script: dict[str, Lands], cancel_after: float | None, express: bool) -> tuple[Any, list[Any]]:
    upstream, records = Flown(script, express=express), Records()
    result = None
    with trio.move_on_after(math.inf if cancel_after is None else cancel_after):
        result = await run(plan, Inputs(), facts(DEADLINE), {"u": upstream}, records)
    upstream.assert_all_ended()
    ended = sorted(
        (event.outcome.call, event.outcome.state, times(event.outcome.started_at), times(event.outcome.ended_at))
        for event in records.calls
    )
    return plain_result(result), ended


def times(at: float | None) -> float:
    return -1.0 if at is None else round(at, 8)


def assert_possible(express: Any, ordinary: Callable[[], Any]) -> None:
    """The ordinary way gives the same, at least now and then: at the deadline several calls are cut at once, and which
    of them is the first to be missed is the scheduler's to say. So it has several tries, of which nearly all need one.
    """
    other: Any = None
    for _ in range(TRIES):
        other = ordinary()
        if other == express:
            return
    assert express == other


def unique_limits(plan: Plan) -> bool:
    """Whether no two calls can come to their limits at once: which is the first would be the scheduler's to say."""
    limits = [call.rules.timeout for call in plan.calls if call.rules.timeout is not None]
    return len(limits) == len(set(limits))


@settings(max_examples=100, deadline=None, suppress_health_check=BUSY_MACHINE)
@given(
    plan=plans(),
    script=scripts(),
    cancel_after=st.one_of(st.none(), st.none(), st.sampled_from([0.0, 0.05, 0.33, 0.77])),
)
def test_any_plan_gives_the_same_by_both_ways(plan: Plan, script: dict[str, Lands], cancel_after: float | None) -> None:
    assume(unique_limits(plan))
    script = {key: each._replace(in_air=True) if each.bug else each for key, each in script.items()}
    express = trio.run(fly, plan, script, cancel_after, True, clock=trio.testing.MockClock(autojump_threshold=0))
    assert_possible(
        express,
        lambda: trio.run(fly, plan, script, cancel_after, False, clock=trio.testing.MockClock(autojump_threshold=0)),
    )


def behaviour(name: str, tenths: int, what: str, cut: int) -> Step:
    """What a real upstream does, after a while of its own."""

    async def step(peer: Peer) -> bool:
        with trio.move_on_after(math.inf if what == "hang" else delay(name, tenths)) as scope:
            await peer.closed()
        if not scope.cancelled_caught or what == "closes":
            return False
        if what == "resets":
            peer.reset()
            return False
        answer = {"value": ONE, "busy": BUSY, "garbage": response(b"{"), "last": ONE_AND_CLOSE}.get(what, ONE)
        if what == "breaks":
            await peer.send(answer[:cut])
            return False
        # Two pieces come at two times, which are no other call's either.
        await peer.send(answer[:cut])
        await trio.sleep(3e-8)
        await peer.send(answer[cut:])
        return what != "last"

    return step


ONE_AND_CLOSE = response(b'{"one":1}', b"Connection: close")
WHATS = ["value", "value", "value", "busy", "garbage", "last", "closes", "resets", "breaks", "hang"]
steps = st.tuples(st.sampled_from([1, 3, 6]), st.sampled_from(WHATS), st.integers(1, 40))


@settings(max_examples=30, deadline=None, suppress_health_check=BUSY_MACHINE)
@given(plan=plans(), drawn=st.tuples(*[steps] * len(NAMES)), retry=st.sampled_from([None, {"attempts": 2}]))
def test_any_plan_gives_the_same_by_both_ways_over_sockets(plan: Plan, drawn: Any, retry: Any) -> None:
    assume(unique_limits(plan))
    script = {f"/{name}": [behaviour(name, *each)] for name, each in zip(NAMES, drawn, strict=True)}
    calls = {call.name: call.config.model_dump(exclude_unset=True, by_alias=True) for call in plan.calls}
    for call in calls.values():
        if "timeout" in call:
            call["timeout"] = f"{call['timeout'] * 1000:.0f}ms"
    route: dict[str, Any] = (
        {"path": "/r", "combine": plan.route.combine, "quorum": plan.route.quorum} if plan.needed else {"path": "/r"}
    )
    case = Case(script, calls=calls, route=route, upstream={"retry": retry}, deadline=DEADLINE, warm=3)
    express, ordinary = (
        lambda way=way: trio.run(seen, case, way, clock=trio.testing.MockClock(autojump_threshold=0.003)).results
        for way in (True, False)
    )
    assert_possible(express(), ordinary)
