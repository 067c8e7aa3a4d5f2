"""Mirrors that are closed at each step of their copies: nothing is in flight afterwards, and every copy is counted."""

from __future__ import annotations

from typing import Literal

import httpx
import pytest
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.composition.composing import Scripted, facts
from tests.support.logs.records import Records
from umbel.core.call import PreparedRequest
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.upstream.mirrors import Mirrors, RequestCopy


async def upstream(request: httpx.Request) -> httpx.Response:
    await trio.sleep(0.01)
    await trio.lowlevel.checkpoint()
    return httpx.Response(503 if request.extensions["target"] == b"/b" else 200, json=1)


@pytest.mark.parametrize("mode", ["whole", "stream"])
async def test_mirrors_cancelled_at_any_step_leave_no_copy_in_flight(
    mode: Literal["whole", "stream"], autojump_clock: trio.abc.Clock
) -> None:
    scripted, records = Scripted(upstream), Records()
    made: list[Mirrors] = []

    async def operation() -> None:
        records.events.clear()
        async with Mirrors({"v2": TransportCaller(scripted)}, records) as mirrors:
            made[:] = [mirrors]
            for target in (b"/a", b"/b"):
                prepared = PreparedRequest("POST", target, (), b"body")
                copy = RequestCopy("v2", "x", lambda prepared=prepared: prepared, facts(), 5.0, None, mode)
                mirrors.send(copy)
            await trio.sleep(0.1)

    def check() -> None:
        assert scripted.in_flight == 0
        if made:
            found = made.pop().statistics()["v2"]
            assert (found.in_flight, found.bytes_in_flight) == (0, 0)
            assert sum(found.results.values()) in (0, 2)
            assert len(records.calls) == found.results["ok"] + found.results["failed"]

    assert await for_every_checkpoint(operation, check, any_task=True) > 8
