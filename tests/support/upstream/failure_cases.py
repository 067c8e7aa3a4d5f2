"""Failure cases of an upstream: it closes or resets the connection, hangs, or answers late.

Each is a ``composition_over_sockets.Step``: a function of the peer, which returns False if it has ended the connection.
"""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.over_sockets import ONE, Step
from tests.support.upstream.raw_server import Peer


async def reset(peer: Peer) -> bool:
    """The request is taken, and nothing of it answered."""
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
    async def step(peer: Peer) -> bool:
        with trio.move_on_after(seconds) as scope:
            await peer.closed()
        if scope.cancelled_caught:
            await peer.send(then)
        return scope.cancelled_caught

    return step
