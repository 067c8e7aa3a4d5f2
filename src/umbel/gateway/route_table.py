"""Route table: the routes that are answered before Quart, and the decision whether there are any.

Theory
------
*Problem.* Answering a request before Quart is faster, but skips Quart's hooks (``before_request``, error handlers,
signals, sessions, …). A hook may be a login. So the table must know which hooks exist, and the answer must not change
while requests are served.

*The decision* depends on ``[server] hooks`` and on the hooks that ``hooks.py`` has found:

    hooks      configured routes before Quart        handlers of @app.compose before Quart
    "auto"     if no hook was found                  if no hook was found
    "all"      never                                 never
    "python"   always; skipped hooks are reported    if no hook was found

A handler is the application's own code, so a hook is meant for it too, also with "python". Exceptions of handlers go to
Quart's error handling in any case (``handler_cycle.py``).

*Time.* ``open`` decides once, after the application's startup functions, and until ``close`` the application refuses
further registrations. Some changes cannot be refused: a receiver of a signal, ``app.config``, ``app.view_functions``,
an attribute. They have no effect on a request that is answered before Quart.

*Matching.* werkzeug's map of the application matches hosts and paths (``routing/url_map.py``), so a request has the
same route before Quart and in Quart. Matches are cached by method, raw path and the host patterns that fit. Routes that
differ only in ``match`` are a ``RouteGroup``, which chooses one of them for each request. Host and fields are those
that a trusted proxy reports, and are read only if a route has a host or a ``match`` (``reads_head``). Everything that
is not a plain match is left to Quart: another route, a redirect, an error, OPTIONS, a probe, a target that is not a
plain path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec
from werkzeug.exceptions import HTTPException

from ..config.schema.section_tree import dotted
from ..core.console import say
from ..core.errors import ConfigError, ConfigProblem, RequestError
from ..core.events import LogMessage
from ..net.bounded_cache import BoundedCache
from .operation.probes import PATHS
from .proxy.websocket_routes import refuse_websockets
from .quart.hooks import Hook, View
from .request.paths import check_path, forbidden_in_query
from .routing.empty_segments import belongs_to_another_route
from .routing.encoded_slashes import holds_encoded_slash, path_to_match, with_slashes
from .routing.route_group import RouteGroup

if TYPE_CHECKING:
    from quart.routing import QuartRule
    from werkzeug.routing import MapAdapter

    from ..config.schema.sections import Config, KeyPath
    from ..core.events import Recorder
    from .compose import ComposeView
    from .context import GatewayContext
    from .proxy.proxy_view import ProxyView
    from .request.client_origin import ClientOrigin
    from .routes import RouteView
    from .routing.url_map import UmbelMap
    from .static_routes import StaticView

    ConfiguredRoute: TypeAlias = RouteView | StaticView | ProxyView | RouteGroup
    AnyView: TypeAlias = RouteView | StaticView | ProxyView | ComposeView

EVENT = "hooks.found"
_KNOWN_MAX, _KNOWN_SIZE = 1024, 256
"""Maximum number of cached matches, and maximum bytes of a cached path."""
_IMMUTABLE = frozenset({str, int, float, bool, UUID})
"""Types of values that several requests may share. A converter of the application may make mutable values."""


class Match(msgspec.Struct, frozen=True):
    """Route that answers a method and path, with the values of the rule's variables. Shared by requests; read-only."""

    route: AnyView | RouteGroup
    rule: QuartRule
    path: Mapping[str, Any]
    """The values of the rule's variables."""
    decoded: str
    """The path of the request, percent-decoded."""


class RouteTable:
    """Routes of one application that are answered before Quart; see the module. Finds none while it is closed."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether the application is serving and registrations are refused."""
        self.before_quart = False
        """Whether configured routes are answered before Quart."""
        self.hooks: tuple[str, ...] = ()
        """Descriptions of the hooks that would see or change a request in Quart's dispatch. Empty while closed."""
        self.views: dict[str, View] = {}
        """The views of the configured routes in Quart, by endpoint."""
        self.reads_head = False
        """Whether ``find`` needs the origin of a request: a route has a host or a ``match``. False while closed."""
        self._url_map: UmbelMap | None = None
        """The application's map of routes; None while closed."""
        self._routes: dict[str, ConfiguredRoute] = {}
        """All configured routes, by endpoint."""
        self.handlers: dict[str, ComposeView] = {}
        """All handlers of ``@app.compose``, by endpoint."""
        self._served: dict[str, AnyView | RouteGroup] = {}
        """The routes and handlers that are answered before Quart, by endpoint."""
        self._adapters: dict[tuple[str, ...], MapAdapter] = {}
        """Match paths, by the host patterns that fit the request."""
        self._matches: BoundedCache[tuple[str, bytes, tuple[str, ...]], Match] = BoundedCache(
            _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda asked: len(asked[1])
        )
        self._known = self._matches.entries

    def add(self, endpoint: str, route: ConfiguredRoute, function: object) -> None:
        """Add a configured route; ``endpoint`` and ``function`` are its endpoint and view in Quart."""
        self._routes[endpoint] = route
        self.views[endpoint] = View(route.rule, function)

    def passes_on(self, endpoint: str) -> bool:
        """Whether a route of this endpoint in Quart is a proxy route."""
        route = self._routes.get(endpoint)
        return route is not None and route.passes_on

    def add_handler(self, endpoint: str, handler: ComposeView) -> None:
        """Add a handler of ``@app.compose``; ``endpoint`` is its endpoint in Quart."""
        self.handlers[endpoint] = handler

    def open(
        self, context: GatewayContext, url_map: UmbelMap, view_functions: Mapping[str, object], found: Sequence[Hook]
    ) -> None:
        """Decide which routes are answered before Quart, report hooks to stderr and the log, and refuse new rules.

        Args:
            context: the gateway context.
            url_map: the application's map of routes.
            view_functions: the application's views by endpoint.
            found: the hooks that ``find_hooks`` has found.

        Raises:
            ConfigError: ``hooks = "python"`` skips a hook that may be a login, and a route has no ``auth``; or a proxy
                route passes on WebSocket connections, but configured routes go through Quart.
        """
        config = context.config
        mode = config.server.hooks
        if mode == "python":
            _check_auth(config, [hook for hook in found if hook.may_refuse])
        self.is_open = url_map.serves = True
        self._url_map = url_map
        self.hooks = tuple(hook.phrase for hook in found)
        self.before_quart = mode == "python" or (mode == "auto" and not found)
        if not self.before_quart:
            cause = ", ".join(self.hooks) or f'hooks = "{mode}"'
            refuse_websockets(config, f"cannot work, since configured routes go through Quart because of {cause}")
        self._served = {**self._routes} if self.before_quart else {}
        if mode != "all" and not found:
            self._served |= {name: each for name, each in self.handlers.items() if _is_own(view_functions, name, each)}
        groups = any(type(route) is RouteGroup for route in self._served.values())
        self.reads_head = groups or (bool(self._served) and bool(url_map.by_host))
        if found and (self._routes or self.handlers) and mode != "all":
            self._report(context.serving.recorder)

    def close(self) -> None:
        """Leave every request to Quart, and allow registrations again."""
        self.is_open = False
        if self._url_map is not None:
            self._url_map.serves = False
        self._url_map = None
        self.before_quart = False
        self.hooks = ()
        self._served = {}
        self.reads_head = False
        self._adapters = {}
        self._known.clear()

    def find(self, method: str, target: bytes, origin: ClientOrigin | None = None) -> Match | None:
        """Find the route that answers a request before Quart; None: leave the request to Quart.

        Args:
            method: the method.
            target: the raw request target (``/path?query``). ``root_path`` is not considered.
            origin: the origin of the request; needed if the table ``reads_head``.
        """
        path, mark, query = target.partition(b"?")
        patterns: tuple[str, ...] = ()
        if origin is not None and self._url_map is not None:
            if origin.misreports_host and self._url_map.by_host:
                return None  # Quart's part refuses it.
            patterns = self._url_map.patterns_for(origin.host)
        match: Match | None
        try:
            match = self._known[method, path, patterns]
        except KeyError:
            match = self._match(method, path, patterns)
        if mark and match is not None and forbidden_in_query(query):
            return None
        if match is not None and type(match.route) is RouteGroup and origin is not None:
            route = match.route.choose(method, origin.fields, query)
            return None if route is None else Match(route, match.rule, match.path, match.decoded)
        return match

    def _match(self, method: str, raw: bytes, patterns: tuple[str, ...]) -> Match | None:
        # A path that begins with two slashes must be redirected, but werkzeug would match it as a path with one.
        if not self._served or not raw.startswith(b"/") or raw.startswith(b"//") or method == "OPTIONS":
            return None
        assert self._url_map is not None
        kept = self._url_map.keeps_slashes
        adapter = self._adapters.get(patterns)
        if adapter is None:
            adapter = self._adapters[patterns] = self._url_map.adapter_for(patterns)
        try:
            check_path(raw, slashes=bool(kept))
            path = unquote_to_bytes(raw).decode()
            encoded = kept and holds_encoded_slash(raw)
            rule, values = adapter.match(path_to_match(raw) if encoded else path, method, return_rule=True)
        except (RequestError, HTTPException):
            return None
        # werkzeug compares methods in upper case, but they are case-sensitive.
        if rule.endpoint not in self._served or path in PATHS or method not in (rule.methods or ()):
            return None
        if b"//" in raw and belongs_to_another_route(adapter, path, method):
            return None  # Quart's part refuses it.
        if encoded:
            if rule.endpoint not in kept:
                return None
            values = with_slashes(values)
        match = Match(self._served[rule.endpoint], cast("QuartRule", rule), values, path)
        if all(type(value) in _IMMUTABLE for value in values.values()):
            self._matches.add((method, raw, patterns), match)
        return match

    def _report(self, recorder: Recorder) -> None:
        what = ", ".join(self.hooks)
        if self.before_quart and self._routes:
            sentence = f'configured routes are answered before Quart (hooks = "python"), which skips {what}'
        else:
            routes = "configured routes go" if self._routes else "handlers of @app.compose go"
            sentence = f"{routes} through Quart, which costs speed, because of {what}"
        say(f"warning: {sentence}")
        recorder.record(LogMessage("warning", EVENT, sentence))


def _is_own(view_functions: Mapping[str, object], endpoint: str, handler: ComposeView) -> bool:
    """Whether Quart would call the handler's own view. (An endpoint with a dot belongs to a blueprint with hooks.)"""
    return view_functions.get(endpoint) is handler.view and "." not in endpoint


def _check_auth(config: Config, logins: list[Hook]) -> None:
    """Check that each route of ``config`` has ``auth`` if there are ``logins``: hooks that may be a login.

    Raises:
        ConfigError: some routes have no ``auth``. Skipping the hook would make them public without notice.
    """
    if not logins:
        return
    hooks = ", ".join(hook.phrase for hook in logins)
    reason = (
        f'has no auth, and hooks = "python" skips {hooks}; write auth = "none" if the route is to be public, or'
        ' hooks = "auto"'
    )
    silent: list[KeyPath] = [("routes", index) for index, each in enumerate(config.routes) if each.auth is None]
    if silent:
        raise ConfigError([ConfigProblem(config.where(at), None, dotted(at), reason) for at in silent])
