"""Feeds of live data: how old the sample of a new subscriber may be, and how often samples are taken."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from umbel.admin.live import Feed
from umbel.admin.source import Topic


async def test_a_new_subscriber_gets_no_sample_whose_period_is_over(autojump_clock: MockClock) -> None:
    taken: list[float] = []

    async def sample() -> float:
        taken.append(trio.current_time())
        return len(taken)

    feed = Feed("numbers", Topic(sample, 2.0), lambda event, sentence: None)
    assert await feed.newer(0) == (1, b"event: numbers\ndata: 1\n\n")
    await trio.sleep(1.9)
    assert (await feed.newer(0))[0] == 1
    await trio.sleep(0.2)
    assert (await feed.newer(0))[0] == 2
    await trio.sleep(3600)
    assert (await feed.newer(0))[0] == 3
    assert (await feed.newer(3))[0] == 4
    assert taken[-1] - taken[-2] == 2
