"""One run of the demo: the sample upstreams, and a gateway with the sample configuration in front of them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import trio

from ..composition.plan import compiler
from ..config.loading.load import load
from ..config.schema.sections import Config
from ..core.diagnostics.request_console import stderr_is_terminal
from ..gateway.app import Umbel
from ..observe.process.process_side import AdminOptions
from ..server import hypercorn_config, serve
from .traffic import send_traffic
from .upstreams import Urls, sample_upstreams

SAMPLE = Path(__file__).with_name("umbel.toml")
"""The sample configuration, which is package data."""


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """The addresses and paths of a running demo."""

    gateway: str
    """The gateway's base URL."""
    upstreams: Urls
    logs: Path
    """The directory of the log files."""


async def run_demo(
    visit: Callable[[RunningDemo], Awaitable[None]],
    *,
    once: bool = False,
    port: int = 0,
    slow: Collection[str] = (),
    fail: Collection[str] = (),
    traffic_seed: int | None = None,
    logs: Path,
) -> None:
    """Run the upstreams and the gateway until SIGINT or SIGTERM, or with ``once`` until ``visit`` has returned.

    Traffic is sent from the end of ``visit`` until the gateway has stopped. At the end the gateway is stopped
    gracefully, then the upstreams. A cancel ends all at once.

    Args:
        visit: is awaited once, when the gateway serves, with its addresses.
        once: whether the demo ends after ``visit``.
        port: the port of the gateway; 0 for any free one.
        slow: the names of services with slow responses.
        fail: the names of services that respond with 500.
        traffic_seed: the seed of the traffic and of the services' faults; None for no traffic and no faults.
        logs: the directory of the log files.

    Raises:
        OSError: the gateway's port cannot be bound.
        ConfigError: an environment variable makes the sample configuration invalid, or ``logs`` cannot be written.
    """
    faults, seed = traffic_seed is not None, traffic_seed or 1
    async with sample_upstreams(slow=slow, fail=fail, faults=faults, usual_ports=True, seed=seed) as upstreams:
        app = Umbel("umbel.demo", load_sample(upstreams, logs=logs), static_folder=None)
        app.admin_options = AdminOptions(strict=True, terminal=not once and stderr_is_terminal())
        settings = hypercorn_config(bind=[f"127.0.0.1:{port}"])
        visited, traffic = trio.Event(), trio.CancelScope()

        async def serve_gateway(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(app, settings, shutdown_trigger=visited.wait if once else None, task_status=task_status)
            traffic.cancel(reason="the gateway has stopped")

        async with trio.open_nursery() as nursery:
            [gateway] = await nursery.start(serve_gateway)
            await visit(RunningDemo(gateway, upstreams, logs))
            visited.set()
            if traffic_seed is not None:
                with traffic:
                    await send_traffic(gateway, random.Random(traffic_seed))


def load_sample(urls: Urls, *, logs: Path) -> Config:
    """Load the sample configuration, with the upstreams at ``urls`` and the log files in ``logs``.

    Raises:
        ConfigError: an environment variable that the file names makes it invalid.
    """
    config = load(SAMPLE, checks=(compiler.check,))
    upstreams = {name: upstream.model_copy(update={"urls": urls[name]}) for name, upstream in config.upstreams.items()}
    return config.model_copy(update={"upstreams": upstreams, "logs": config.logs.model_copy(update={"dir": str(logs)})})
