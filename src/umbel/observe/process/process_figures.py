"""The figures of one serving process: those of its application, of its server and of the process itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .. import catalogue
from ..figures import Exemplar, Labels, ProcessFigures, Value

if TYPE_CHECKING:
    from ...server.state import ServerState

Values = Mapping[str, list[tuple[Labels, Value]]]
Exemplars = Mapping[str, list[tuple[Labels, list[Exemplar]]]]


class CountingApplication(Protocol):
    """An application that counts, such as ``Umbel``."""

    def figures(self) -> tuple[Values, Exemplars]:
        """The values and exemplars as in ``ProcessFigures``."""
        ...


def process_figures(process: str, app: Any, server: ServerState | None) -> ProcessFigures:
    """Collect the figures of this process in one step, in the trio thread.

    Args:
        process: as ``ProcessFigures.process``.
        app: the application; one without ``figures()`` contributes none.
        server: the server; None: it contributes none.
    """
    figures = getattr(app, "figures", None)
    values: dict[str, list[tuple[Labels, Value]]] = {}
    exemplars: Exemplars = {}
    if figures is not None:
        of_app, exemplars = figures()
        values |= of_app
    if server is not None:
        values |= _server_values(server)
    return ProcessFigures(process=process, pid=os.getpid(), values=values, exemplars=exemplars)


def _server_values(server: ServerState) -> dict[str, list[tuple[Labels, Value]]]:
    statistics = server.statistics()
    return {
        catalogue.SERVER_ACTIVE.name: [((), statistics.requests_in_flight + statistics.uploads)],
        catalogue.IN_FLIGHT.name: [((), statistics.requests_in_flight)],
        catalogue.CAPACITY.name: [((), server.limits.max_in_flight)],
        catalogue.STREAMS.name: [((), statistics.streams)],
        catalogue.CONNECTIONS.name: [((), statistics.connections)],
        catalogue.REFUSED.name: [((str(status),), count) for status, count in statistics.refused.items()],
    }
