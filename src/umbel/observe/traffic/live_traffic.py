"""The traffic of routes and upstreams as topics of an admin side: samples of the figures of all processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from ...admin.source import Topic
from ..figures import ProcessFigures
from .routes import routes_of
from .upstreams import Snapshots, upstreams_of
from .window import FiguresWindow


class LiveTraffic:
    """The traffic of all processes of a source. In one trio thread.

    Args:
        figures: gives the figures of all processes.
        snapshots: gives the snapshots of their upstreams, by name of the process; None: it has not answered.
    """

    def __init__(
        self,
        figures: Callable[[], Awaitable[Sequence[ProcessFigures]]],
        snapshots: Callable[[], Awaitable[Mapping[str, Snapshots | None]]],
    ) -> None:
        self._figures = figures
        self._snapshots = snapshots
        self._window = FiguresWindow()

    def topics(self) -> dict[str, Topic]:
        """The topics ``routes`` and ``upstreams``."""
        return {"routes": Topic(self.routes), "upstreams": Topic(self.upstreams)}

    async def routes(self) -> dict[str, Any]:
        """As ``routes_of``. In the time of the figures."""
        figures = await self._figures()
        return routes_of(self._window.change(trio.current_time(), figures))

    async def upstreams(self) -> dict[str, Any]:
        """As ``upstreams_of``. In the time of the figures and of the snapshots."""
        figures = await self._figures()
        return upstreams_of(self._window.change(trio.current_time(), figures), await self._snapshots())
