"""Failure cases of an upstream: it closes or resets the connection, hangs, or answers late.

Each case is an ``over_sockets.Step``: a function of the peer, which returns False if the connection has ended.
"""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.over_sockets import ONE, Step
from tests.support.upstream.raw_server import Peer


async def reset(peer: Peer) -> bool:
    """Reset the connection before the first byte of the response."""
    peer.reset()
    return False


async def fin(peer: Peer) -> bool:
    return False


async def reset_in_the_head(peer: Peer) -> bool:
    await peer.send(b"H")
    await wait_all_tasks_blocked()
    peer.reset()
    return False


async def reset_in_the_body(peer: Peer) -> bool:
    await peer.send(ONE[:-3])
    await wait_all_tasks_blocked()
    peer.reset()
    return False


async def hang(peer: Peer) -> bool:
    await peer.closed()
    return False


async def hang_in_the_body(peer: Peer) -> bool:
    await peer.send(ONE[:-3])
    await peer.closed()
    return False


async def hang_in_the_head(peer: Peer) -> bool:
    await peer.send(ONE[:20])
    await peer.closed()
    return False


def after(seconds: float, then: bytes = ONE) -> Step:
    """Make a step that sends ``then`` after ``seconds``, unless the client closes before."""

    async def step(peer: Peer) -> bool:
        with trio.move_on_after(seconds) as scope:
            await peer.closed()
        if scope.cancelled_caught:
            await peer.send(then)
        return scope.cancelled_caught

    return step
