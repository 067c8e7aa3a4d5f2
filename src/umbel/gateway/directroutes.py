"""Which requests are answered without Quart's dispatch: those for routes of the configuration, while nothing needs it.

Asked for every request, so it must be quick. werkzeug's own map is the judge of paths; what is not a plain match of
such a route (another route, a redirect, an error, OPTIONS, a probe) is left to Quart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from quart.routing import QuartMap
from werkzeug.datastructures import ImmutableDict
from werkzeug.exceptions import HTTPException

from ..errors import RequestError
from .converters import CONVERTERS
from .forwarded import Origin, origin_in
from .obstacles import Hooks, Settings, find_obstacle, hooks_of, settings_of
from .paths import check_path, check_query, merged_path, raw_path
from .probes import PATHS

if TYPE_CHECKING:
    from werkzeug.routing import MapAdapter, RuleFactory

    from .app import Umbel
    from .routes import RouteView

NOT_OPEN = "the application does not serve"
_KEPT = "_quart._preserve_context"
"""Set by Quart's test client, for tests that look at the request's context afterwards."""
_KNOWN_MAX, _KNOWN_SIZE = 1024, 256
"""Paths that are remembered, and the characters of the longest."""


class UmbelMap(QuartMap):
    """Quart's map, which says how often it was added to, and whose numbers are such that JSON can hold."""

    default_converters = ImmutableDict({**QuartMap.default_converters, **CONVERTERS})
    version = 0

    def add(self, rulefactory: RuleFactory) -> None:
        """Add rules."""
        super().add(rulefactory)
        self.version += 1


class Match(NamedTuple):
    """A path and a method that a route of the configuration has."""

    endpoint: str
    view: object
    """What Quart has been given for it."""
    route: RouteView
    path: Mapping[str, Any]
    """The values of the rule."""


class Found(NamedTuple):
    """A request that can be answered without Quart."""

    match: Match
    origin: Origin


class DirectRoutes:
    """The routes of one application that can be answered without Quart.

    What could stand against it is looked at when serving begins, and again whenever something of the application has
    changed. Once something does stand against it, all requests go through Quart, until serving begins anew.
    """

    def __init__(self, app: Umbel, parts: Mapping[str, object]) -> None:
        """``parts`` are those of ``Umbel`` itself (``obstacles.parts_of``)."""
        self.obstacle: str | None = NOT_OPEN
        """Why every request goes through Quart; None if not every one does."""
        self._app = app
        self._parts = parts
        self._routes: dict[str, tuple[RouteView, object]] = {}
        self._known: dict[tuple[str, str, bytes | None], Match] = {}
        """Matches of requests that came before: paths come again."""
        self._adapter: MapAdapter
        # What told of a change when they were looked at last.
        self._hooks: Hooks = ()
        self._settings: Settings = ()
        self._attributes = 0
        self._changes = 0
        self._map: object = None

    def add(self, endpoint: str, route: RouteView, view: object) -> None:
        """Take a route of the configuration, which Quart knows as ``endpoint`` and calls by ``view``."""
        self._routes[endpoint] = (route, view)

    def open(self) -> None:
        """Serving begins."""
        self._look()

    def close(self) -> None:
        """Serving is over."""
        self.obstacle = NOT_OPEN
        self._known.clear()

    def find(self, scope: Mapping[str, Any]) -> Found | None:
        """The route that answers this request without Quart, if one does."""
        if self.obstacle is not None:
            return None
        app = self._app
        if (
            any(self._hooks)
            or self._changes != app.setup_changes + app.url_map.version
            or self._map is not app.url_map
            or len(vars(app)) != self._attributes
            or settings_of(app.config) != self._settings
        ):
            self._look()
            if self.obstacle is not None:
                return None
        method, path, raw = scope["method"], scope["path"], scope.get("raw_path")
        match = self._known.get((method, path, raw)) or self._match(method, path, raw)
        if match is None or app.view_functions.get(match.endpoint) is not match.view:
            return None
        if scope.get("root_path") or scope.get(_KEPT) or ((query := scope["query_string"]) and not _is_sound(query)):
            return None
        origin = origin_in(scope, app.trusted_proxies)
        # Quart refuses a host that is none.
        return Found(match, origin) if origin.fields.has_plain_host else None

    def _look(self) -> None:
        app = self._app
        self._known.clear()
        self.obstacle = find_obstacle(app, self._parts)
        self._hooks, self._settings, self._attributes = hooks_of(app), settings_of(app.config), len(vars(app))
        self._map = app.url_map
        self._changes = app.setup_changes + app.url_map.version
        self._adapter = app.url_map.bind("")

    def _match(self, method: str, path: str, raw: bytes | None) -> Match | None:
        if method == "OPTIONS" or not path.startswith("/") or path in PATHS:
            return None
        try:
            target = raw_path(path, raw)
            check_path(target)
            if merged_path(target) is not None:
                return None
            rule, values = self._adapter.match(path, method, return_rule=True)
        except (RequestError, HTTPException):
            return None
        if rule.endpoint not in self._routes:
            return None
        route, view = self._routes[rule.endpoint]
        match = Match(rule.endpoint, view, route, values)
        if len(path) <= _KNOWN_SIZE:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[method, path, raw] = match
        return match


def _is_sound(query: bytes) -> bool:
    try:
        check_query(query)
    except RequestError:
        return False
    return True
