"""``umbel serve`` with a proxy route for all paths, as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.support.process.launched_workers import Launched, launched

CONFIG = """
[logs]
flush_every = "5ms"
@SECTIONS@
[upstreams.up]
urls = ["http://127.0.0.1:@UPSTREAM@"]
[[routes]]
path = "/<path:rest>"
[routes.proxy]
upstream = "up"
websocket = true
@KEYS@
"""


def proxy_config(upstream: int, *, keys: str = "", sections: str = "") -> str:
    """A configuration with a proxy route to the port ``upstream``.

    Args:
        upstream: the port.
        keys: further keys of the route's ``proxy``.
        sections: further sections.
    """
    return CONFIG.replace("@UPSTREAM@", str(upstream)).replace("@KEYS@", keys).replace("@SECTIONS@", sections)


@asynccontextmanager
async def proxying(
    upstream: int, directory: Path, *, keys: str = "", sections: str = "", settings: str = ""
) -> AsyncIterator[Launched]:
    """Serve a proxy route to the upstream within the block. After it the server may not have printed a traceback.

    ``settings`` are further settings of Hypercorn; ``keys`` and ``sections`` are those of ``proxy_config``.
    """
    config = proxy_config(upstream, keys=keys, sections=sections)
    # In a thread, since both wait for the process, and the upstream may run in this one.
    manager = launched("umbel serve", directory, config, settings=settings)
    server = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(manager.__exit__, None, None, None)
    assert "Traceback" not in server.output
