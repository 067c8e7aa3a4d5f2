"""One run of the demo: the sample upstreams, the gateway before them, and what is done with both, in one nursery.

It prints nothing; the command does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ..gateway.app import Umbel
from ..server import hypercorn_config, serve
from .sample import load_sample
from .upstreams import Urls, sample_upstreams


@dataclass(frozen=True, slots=True)
class Running:
    """What a running demo consists of."""

    gateway: str
    """The gateway's base URL."""
    upstreams: Urls
    logs: Path
    """The directory of the records."""


async def run_demo(
    visit: Callable[[Running], Awaitable[None]],
    *,
    once: bool = False,
    port: int = 0,
    slow: Collection[str] = (),
    fail: Collection[str] = (),
    logs: Path,
) -> None:
    """Start the upstreams, then the gateway, then call ``visit``; end with it if ``once``, else with SIGINT or SIGTERM.

    The gateway ends first and gracefully, the upstreams after it.

    Raises:
        OSError: the gateway's port cannot be listened on.
        ConfigError: a variable of the environment spoils the sample configuration, or ``logs`` cannot be written.
    """
    async with sample_upstreams(slow=slow, fail=fail, usual_ports=True) as upstreams:
        app = Umbel("umbel.demo", load_sample(upstreams, logs=logs), static_folder=None)
        settings = hypercorn_config(bind=[f"127.0.0.1:{port}"])
        visited = trio.Event()
        async with trio.open_nursery() as nursery:
            run = partial(serve, app, settings, shutdown_trigger=visited.wait if once else None)
            [gateway] = await nursery.start(run)
            await visit(Running(gateway, upstreams, logs))
            visited.set()
