"""Hedging over sockets: one of two replicas is half a second late, and the p99 hardly shows it."""

from __future__ import annotations

import statistics

import pytest
import trio

from tests.support.upstream.calls import Caller, url
from tests.support.upstream.raw_server import Handler, Peer, raw_server, response
from umbel.upstream import Hedge, Transport

RATE = 150
"""Calls a second."""


class Replica:
    """How late a replica answers, in seconds; turned while it serves."""

    def __init__(self) -> None:
        self.late = 0.0
        self.open = 0
        """Requests that the replica is processing."""

    def handler(self) -> Handler:
        async def handler(peer: Peer) -> None:
            while (await peer.read_request())[0]:
                self.open += 1
                try:
                    with trio.move_on_after(0.005 + self.late):
                        await peer.closed()
                        return
                finally:
                    self.open -= 1
                await peer.send(response(b"ok"))

        return handler


async def p99(transport: Transport, calls: int) -> float:
    took: list[float] = []
    caller = Caller(transport.client)

    async def call() -> None:
        begun = trio.current_time()
        await caller.call(budget=5.0)
        took.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        for number in range(calls):
            await trio.sleep_until(begun + number / RATE)
            nursery.start_soon(call)
    return statistics.quantiles(took, n=100)[98]


@pytest.mark.parametrize("from_the_start", [False, True])
async def test_hedging_lowers_the_p99_with_a_slow_replica_to_a_third_at_most(from_the_start: bool) -> None:
    good, bad = Replica(), Replica()
    bad.late = 0.5 * from_the_start
    with trio.fail_after(40):
        async with (
            raw_server(good.handler()) as one,
            raw_server(bad.handler()) as other,
            Transport([url(one), url(other)]) as plain,
            Transport([url(one), url(other)], hedge=Hedge("p95")) as hedged,
        ):
            # There is no percentile before a replica has had a hundred calls, so both get as many first.
            for transport in (plain, hedged):
                await p99(transport, 200)
            bad.late = 0.5
            without = await p99(plain, 200)
            # A pause of the machine delays the good replica too, and raises the percentile.
            for _ in range(3):
                if (with_hedges := await p99(hedged, 200)) <= without / 3:
                    break
            # An attempt that lost is cancelled and its connection closed: long before it would have been answered,
            # nobody works on in vain.
            with trio.fail_after(bad.late / 2):
                while good.open or bad.open:
                    await trio.lowlevel.checkpoint()
    assert without > 0.5
    assert with_hedges <= without / 3
