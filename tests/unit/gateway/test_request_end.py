"""The access record of a request, made from its context and from what was sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio

from tests.support.server.inbound import MemoryRequest
from umbel.core.model import RequestFacts, Trace
from umbel.gateway.request_end import record_of

MockClock = trio.testing.MockClock


def context(inbound: MemoryRequest) -> Any:
    return SimpleNamespace(
        inbound=inbound,
        facts=RequestFacts("id", Trace("t"), "GET", "/", "/", 0.0),
        origin=SimpleNamespace(client="192.0.2.1", scheme="http"),
        answered_by_server=None,
        auth=None,
        limit="",
        completed=None,
        kind=None,
        detail="",
        own_ms=None,
        of_client=False,
        outcomes=(),
        calls={},
    )


async def test_a_taken_request_has_the_status_101_and_the_time_of_its_switch(autojump_clock: MockClock) -> None:
    for status in (101, 200):
        request = MemoryRequest()
        began = trio.current_time()
        await trio.sleep(1)
        stream = await request.take(status, [])
        await stream.send_all(b"hello")
        await trio.sleep(5)
        request.leave()
        ended = record_of(context(request))
        assert (ended.status, ended.switched_at, ended.ended_at) == (101, began + 1, began + 6)
        assert (ended.bytes_sent, ended.kind, ended.detail) == (5, None, "")
