"""One run of the demo: the sample upstreams, and the gateway before them with the sample configuration, in one nursery.

Prints nothing. The sample configuration is package data and is never written to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ..composition.plan import compiler
from ..config.loading.load import load
from ..config.schema.sections import Config
from ..gateway.app import Umbel
from ..server import hypercorn_config, serve
from .upstreams import Urls, sample_upstreams

SAMPLE = Path(__file__).with_name("umbel.toml")
"""The configuration of the demo, which comes with the package."""


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """The addresses and paths of a running demo."""

    gateway: str
    """The gateway's base URL."""
    upstreams: Urls
    logs: Path
    """The directory of the records."""


async def run_demo(
    visit: Callable[[RunningDemo], Awaitable[None]],
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
            await visit(RunningDemo(gateway, upstreams, logs))
            visited.set()


def load_sample(urls: Urls, *, logs: Path) -> Config:
    """Load the sample configuration, with the upstreams at ``urls`` and its records in the directory ``logs``.

    Raises:
        ConfigError: a variable of the environment that the file names makes it invalid.
    """
    config = load(SAMPLE, checks=(compiler.check,))
    upstreams = {name: upstream.model_copy(update={"urls": urls[name]}) for name, upstream in config.upstreams.items()}
    return config.model_copy(update={"upstreams": upstreams, "logs": config.logs.model_copy(update={"dir": str(logs)})})
