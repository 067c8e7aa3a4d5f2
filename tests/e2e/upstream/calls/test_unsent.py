"""Calls that are cancelled between ``start`` and ``send``: nothing is sent, and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.logs.records import Records
from tests.support.upstream.calls import Caller, calling, request_facts, url
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.core.call import Call, CallContext, PreparedRequest, SingleCallOwner


async def counting(peer: Peer) -> None:
    """Answer with the number of requests on this connection."""
    count = 0
    while (await peer.read_request())[0]:
        count += 1
        await peer.send(response(b"%d" % count))


class Owner(SingleCallOwner):
    """Owner that keeps the end of its call."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = trio.Event()

    def call_ended(self, call: Call) -> None:
        super().call_ended(call)
        self.heard.set()


def start(upstream: Caller, owner: SingleCallOwner, method: str = "GET") -> Call:
    """A call that is started and not sent."""
    context = CallContext(owner, "call", "upstream", request_facts(), recorder=Records(), takes_attempts=True)
    call = upstream.client.new_call(PreparedRequest(method, b"/", ()), context)
    call.start(trio.current_time())
    return call


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("policies", [{}, {"hedge": {"after": "1s"}, "retry": {"attempts": 2}}, {"coalesce": True}])
async def test_a_call_cancelled_before_send_sends_nothing(method: str, policies: dict[str, Any]) -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while head := await peer.read_head():
            seen.append(head)
            await peer.send(response(b"ok"))

    async with raw_server(handler) as server, calling(url(server), **policies) as upstream:
        await upstream.call()
        call = start(upstream, SingleCallOwner(), method)
        assert upstream.client.statistics().pool.active == 1
        call.cancel("decided")
        call.send()
        upstream.assert_nothing_left()
        assert len(call.context.attempts) == 1
        await server.all_closed()
        assert len(seen) == 1
        assert (await upstream.call()).status_code == 200


async def test_a_shared_call_is_sent_by_another_waiter_if_the_first_leaves_before_send() -> None:
    async with raw_server(counting) as server, calling(url(server), coalesce=True) as upstream:
        await upstream.call()
        owner = Owner()
        first, second = start(upstream, SingleCallOwner()), start(upstream, owner)
        first.cancel("decided")
        second.send()
        await owner.heard.wait()
        assert second.content == b"2"
