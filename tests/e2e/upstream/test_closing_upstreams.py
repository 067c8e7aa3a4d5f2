"""An upstream that is closed during calls, over sockets: each call ends, and no socket is left."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.upstream.raw_server import Peer, open_sockets, raw_server, response
from umbel.core.call import Call, CallContext, PreparedRequest, SingleCallOwner
from umbel.core.errors import NotRunningError
from umbel.upstream import ConnectionReset, Retry, Transport


async def serve(peer: Peer) -> None:
    """Answer in the way that the target names."""
    while (request := await peer.read_request())[0]:
        if b"/hang" in request[0]:
            await peer.closed()
            return
        await peer.send(response(b"ok", status=b"503 Busy" if b"/busy" in request[0] else b"200 OK"))


@pytest.mark.parametrize("coalesce", [False, True], ids=["alone", "coalesced"])
async def test_closing_upstreams_ends_every_call_and_closes_every_socket(coalesce: bool) -> None:
    before = open_sockets()
    ends: dict[bytes, Call] = {}
    retry = Retry(backoff=1000.0, max_backoff=1000.0)
    with trio.fail_after(10):
        async with raw_server(serve) as server, trio.open_nursery() as nursery:
            url = f"http://127.0.0.1:{int(server)}"
            async with Transport([url], coalesce=coalesce, max_concurrency=3, max_idle=9, retry=retry) as transport:

                async def ask(target: bytes, method: str = "GET") -> None:
                    owner = SingleCallOwner()
                    context = CallContext(owner, "call", "upstream")
                    call = transport.new_call(PreparedRequest(method, target, []), context)
                    ends[target + method.encode()] = await owner.perform(call)

                async def ask_at_once(*asked: tuple[bytes, str]) -> None:
                    for each in asked:
                        nursery.start_soon(ask, *each)
                        await wait_all_tasks_blocked(0.01)

                # A call for each kind of wait: a response, a back-off (beside an idle connection), a place.
                await ask_at_once((b"/hang/1", "GET"), (b"/hang/2", "GET"), (b"/busy", "GET"))
                await ask_at_once((b"/queued/1", "GET"), (b"/queued/2", "POST"), (b"/queued/2", "GET"))
                bulkhead, pool = transport.statistics().bulkhead, transport.statistics().pool
                assert (bulkhead.in_flight, bulkhead.waiting, pool.active, pool.idle) == (3, 3, 2, 1)
    errors = {target: type(call.error) for target, call in ends.items()}
    assert {errors.pop(b"/hang/1GET"), errors.pop(b"/hang/2GET")} == {ConnectionReset}
    assert errors == dict.fromkeys((b"/busyGET", b"/queued/1GET", b"/queued/2POST", b"/queued/2GET"), NotRunningError)
    assert open_sockets() == before
