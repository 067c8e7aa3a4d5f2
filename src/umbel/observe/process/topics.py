"""The topics of the live page, which are the same for one process and for all processes of a master."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...admin.source import AdminSource, Topic
from ..kept_requests import LATEST_EVERY_S, latest
from ..lints.lint import as_topic
from ..traffic.live_traffic import LiveTraffic

RELOADS_EVERY_S = 2.0
"""The least seconds between two looks for what a reload changed."""


def topics_of(source: AdminSource, traffic: LiveTraffic, reloads: Callable[[], Awaitable[Any]]) -> dict[str, Topic]:
    """Task trees, lints, traffic, the state of the processes, kept requests, and reloads.

    Args:
        source: gives all but traffic and reloads.
        traffic: gives the topics of routes and upstreams.
        reloads: returns what the last reload changed.
    """

    async def tree() -> dict[str, Any]:
        return {"trees": await source.trees()}

    async def lints() -> dict[str, Any]:
        return as_topic(await source.lints())

    async def kept() -> dict[str, Any]:
        return latest(await source.slow())

    return {
        "tree": Topic(tree),
        "lints": Topic(lints),
        "workers": Topic(source.status),
        **traffic.topics(),
        "slow": Topic(kept, LATEST_EVERY_S),
        "config": Topic(reloads, RELOADS_EVERY_S),
    }
