"""A gateway with proxy routes to one raw upstream, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.support.logs.records import Records
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Handler, RawServer, raw_server
from umbel import Umbel
from umbel.config.schema.sections import Config


class Proxied(NamedTuple):
    """A gateway at ``port`` whose route ``/<path:rest>`` is a proxy route to ``upstream``."""

    port: int
    upstream: RawServer
    records: Records
    app: Umbel


def proxy_app(
    port: int,
    *,
    hooks: str = "auto",
    more: dict[str, Any] | None = None,
    others: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    routes: Sequence[dict[str, Any]] = (),
    **proxy: Any,
) -> tuple[Umbel, Records]:
    """An application with one proxy route for all paths, to the upstream ``up`` at ``port``.

    Args:
        more: further keys of the upstream.
        others: further upstreams.
        server: keys of ``[server]``.
        routes: further routes.
        proxy: keys of the route's ``proxy``.
    """
    config = {
        "upstreams": {"up": {"urls": [f"http://127.0.0.1:{port}"], **(more or {})}, **(others or {})},
        "routes": [{"path": "/<path:rest>", "auth": "none", "proxy": {"upstream": "up", **proxy}}, *routes],
        "server": {"hooks": hooks, **(server or {})},
    }
    records = Records()
    return Umbel(__name__, Config.model_validate(config), recorder=records, static_folder=None), records


@asynccontextmanager
async def proxied(
    handler: Handler, *, stock: bool = False, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Proxied]:
    """Serve an upstream and a gateway before it within the block. ``options``: those of ``proxy_app``."""
    async with raw_server(handler) as upstream:
        app, records = proxy_app(int(upstream), **options)
        async with serving(app, stock=stock, **(settings or {})) as port:
            yield Proxied(port, upstream, records, app)
