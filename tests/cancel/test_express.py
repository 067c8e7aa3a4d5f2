"""A composition over real sockets, flown by one task, is cancelled at every checkpoint in turn: nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.bothways import BUSY, ONE, Case, Lab, assert_nothing_left, laboratory
from tests.support.checkpoints import for_every_checkpoint
from tests.support.rawserver import Peer, open_sockets
from umbel.events import AttemptEnded
from umbel.upstream.sentoff import ORIGIN


class Upstream:
    """Answers well, or while it is ``faulty`` every other request in another way."""

    def __init__(self, other: str) -> None:
        self.faulty = False
        self._other = other
        self._count = 0

    async def __call__(self, peer: Peer) -> bool:
        self._count += 1
        if not self.faulty or self._count % 2 or self._other == "none":
            await peer.send(ONE)
        elif self._other == "busy":
            await peer.send(BUSY)
        elif self._other == "ends":
            return False
        else:
            for piece in (ONE[:20], ONE[20:-3], ONE[-3:]):
                await peer.send(piece)
                await wait_all_tasks_blocked()
        return True


CALLS: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {"timeout": "3s"},
    "c": {"path": "/c/{a.one}", "optional": True},
    "d": {"method": "POST", "optional": True},
    "e": {"each": "[a.one, b.one]", "path": "/e/{item}"},
}


class Cut:
    """Compositions that are cut, each by a stack that has what the case keeps."""

    def __init__(self, lab: Lab, upstream: Upstream) -> None:
        self.lab = lab
        self.upstream = upstream
        self.finished = False

    async def operation(self) -> None:
        self.lab.records.events.clear()
        self.finished, self.upstream.faulty = False, True
        await self.lab.run()
        self.finished = True

    async def check(self) -> None:
        events = self.lab.records.events
        stack = self.lab.stack
        assert_nothing_left(stack)
        names = sorted(event.outcome.call for event in self.lab.records.calls)
        # A cut before the first step of all may come before the composition itself began.
        assert names == sorted(self.lab.case.calls) or not (events or self.finished)
        # Of an each that was cut the outcome has no attempts; each has its own record all the same.
        told = [event.call for event in events if isinstance(event, AttemptEnded) and event.call != "e"]
        made = [event.outcome.call for event in self.lab.records.calls for _ in event.outcome.attempts]
        assert sorted(told) == sorted(name for name in made if name != "e")
        # What is left serves: the next call is answered, and nothing of a cut one is mixed into it.
        self.upstream.faulty = False
        result = await self.lab.run()
        assert result.failure is None
        assert_nothing_left(stack)


@pytest.mark.parametrize(
    ("other", "upstream"),
    [
        ("none", {}),
        ("in pieces", {}),
        ("ends", {}),
        ("busy", {"retry": {"attempts": 3, "backoff": "1ms", "max_backoff": "1ms"}, "breaker": {}}),
        ("none", {"max_concurrency": 1, "breaker": {}}),
    ],
    ids=["at once", "in pieces", "replaced", "retried", "queued"],
)
@pytest.mark.parametrize("route", [{}, {"combine": "first"}], ids=["all", "first"])
async def test_cut_anywhere_it_leaves_nothing(other: str, upstream: dict[str, Any], route: dict[str, Any]) -> None:
    sockets = open_sockets()
    does = Upstream(other)
    case = Case([does], calls=CALLS, route=route, upstream=upstream, warm=1 if "max_concurrency" in upstream else 3)
    async with laboratory(case, True) as (lab, _, counting):
        tried = Cut(lab, does)
        steps = await for_every_checkpoint(tried.operation, tried.check)
        assert counting is not None
        assert counting.in_air + counting.carried > steps > 3
        assert counting.in_air
    assert open_sockets() == sockets


async def test_a_breakers_probe_that_is_cut_gives_its_place_back(mock_clock: MockClock) -> None:
    case = Case([BUSY], upstream={"breaker": {"min_requests": 1, "open_for": "1s"}})
    async with laboratory(case, True) as (lab, _, _):
        await lab.run()
        breaker = lab.stack._layers.breaker
        assert breaker is not None
        policy = breaker._policies.of(ORIGIN)

        def check() -> None:
            assert_nothing_left(lab.stack)
            assert policy._probe is None
            mock_clock.jump(2)

        mock_clock.jump(2)
        assert await for_every_checkpoint(lab.run, check) > 3
        assert policy.statistics(trio.current_time()).opened > 1
