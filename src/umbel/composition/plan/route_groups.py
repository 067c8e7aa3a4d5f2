"""Which routes of a configuration answer the same paths, so that their ``match`` chooses among them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...config.schema.sections import Config, Route

CONVERTER = re.compile(r"<(?:([^:<>]+):)?[^<>]+>")
"""A variable of a path, with the converter before its colon."""


class RouteGroups:
    """The routes of a configuration by host and path.

    It is made once for all routes: searching the others for each route would take quadratic time.
    """

    def __init__(self, config: Config) -> None:
        self._routes = config.routes
        self._alike: dict[tuple[str | None, str], list[int]] = {}
        for index, route in enumerate(config.routes):
            self._alike.setdefault((route.host, pattern_of(route.path)), []).append(index)
        self.any_host = any(route.host for route in config.routes)
        """Whether a route names a host."""

    def matches_beside(self, route: Route) -> Sequence[str]:
        """The expressions ``match`` of the routes with the host and path of ``route``, its own included."""
        indexes = self._alike.get((route.host, pattern_of(route.path)), ())
        return [text for index in indexes if (text := self._routes[index].match) is not None]

    def groups(self) -> list[list[int]]:
        """The indexes of the routes, those with the same host and path together if one of them has a ``match``.

        Every other route is alone. The groups are in the order of their first routes, but proxy routes that name no
        methods are last: of rules with the same path, werkzeug takes the first that has the method.
        """
        groups: list[list[int]] = []
        for indexes in self._alike.values():
            if any(self._routes[index].match is not None for index in indexes):
                groups.append(indexes)
            else:
                groups += [[index] for index in indexes]
        return sorted(groups, key=lambda indexes: (_has_any_method(self._routes[indexes[0]]), indexes))


def pattern_of(path: str) -> str:
    """The path of a route without the names of its variables: two routes with the same pattern match the same paths."""
    return CONVERTER.sub(lambda match: f"<{match[1] or 'default'}>", path)


def _has_any_method(route: Route) -> bool:
    return route.proxy is not None and route.methods is None
