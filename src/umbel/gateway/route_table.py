"""The table of the routes that compose, and the decision whether they are answered before Quart.

Theory
------
``[server] hooks`` says who decides. "auto": configured routes are answered before Quart unless the application has
something that would see or change such a request (``hooks.py``). "all": Quart dispatches all of them. "python": Quart
dispatches none, and what it would have called is named.

Handlers of ``@app.compose`` are the application's own code, so a hook is meant for them too: they are answered before
Quart only if there is no hook at all. What they raise is handled by Quart in any case (``handler_cycle.py``).

The decision is made once, by ``open``, after the application's own startup. From then on the application refuses to
register anything until ``close``, so that no request need ask again. What Python cannot refuse (a receiver of a signal,
``app.config``, ``app.view_functions``, an attribute) has no effect on configured routes when it comes later.

werkzeug's own map is the judge of paths. Its matches are remembered by method and raw path, because paths come again.
What is not a plain match of such a route (another route, a redirect, an error, OPTIONS, a probe, a target that is
not a plain path) is left to Quart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec
from quart.routing import QuartMap
from werkzeug.datastructures import ImmutableDict
from werkzeug.exceptions import HTTPException

from ..config.schema.section_tree import dotted
from ..core.console import say
from ..core.errors import ConfigError, ConfigProblem, RequestError
from ..core.events import LogMessage
from ..net.bounded_cache import BoundedCache
from .probes import PATHS
from .quart.hooks import Hook, View
from .request.converters import CONVERTERS
from .request.paths import check_path, forbidden_in_query

if TYPE_CHECKING:
    from quart.routing import QuartRule
    from werkzeug.routing import MapAdapter, RuleFactory

    from ..config.schema.sections import Config, KeyPath
    from ..core.events import Recorder
    from .compose import ComposeView
    from .context import GatewayContext
    from .routes import RouteView

EVENT = "hooks.found"
_KNOWN_MAX, _KNOWN_SIZE = 1024, 256
"""Matches that are remembered, and the bytes of the longest path."""
_IMMUTABLE = frozenset({str, int, float, bool, UUID})
"""The types of values that requests may share. What a converter of the application's own makes may be anything."""


def refuse_registration(what: str) -> None:
    """Refuse to register something while the application serves.

    Raises:
        AssertionError: always; it is what Quart and Flask raise.
    """
    raise AssertionError(
        f"'{what}' was called while the application serves. How requests go through it was decided when it started, so"
        " this would not apply to all of them. Register everything before the application starts, or in a function"
        " that runs at its startup (before_serving)."
    )


class UmbelMap(QuartMap):
    """Quart's map, whose numbers are such that JSON can hold, and to which nothing is added while it is served."""

    default_converters = ImmutableDict({**QuartMap.default_converters, **CONVERTERS})
    serves = False

    def add(self, rulefactory: RuleFactory) -> None:
        """Add rules.

        Raises:
            AssertionError: the application serves.
        """
        if self.serves:
            refuse_registration("url_map.add")
        super().add(rulefactory)


class Match(msgspec.Struct, frozen=True):
    """A path that a route of the table answers by the method asked for. Shared by requests: not to be changed."""

    route: RouteView | ComposeView
    rule: QuartRule
    path: Mapping[str, Any]
    """The values of the rule's variables."""
    decoded: str
    """The request's path without percent-encoding."""


class RouteTable:
    """The routes of one application that are answered before Quart; none while it is closed."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether the application serves, so that nothing can be registered."""
        self.before_quart = False
        """Whether configured routes are answered before Quart."""
        self.hooks: tuple[str, ...] = ()
        """What would see or change a request for one in Quart's dispatch. Empty while closed."""
        self.views: dict[str, View] = {}
        """The functions that Quart was given for the configured routes, by endpoint."""
        self._url_map: UmbelMap | None = None
        """Of the application, while it serves."""
        self._routes: dict[str, RouteView] = {}
        self._handlers: dict[str, ComposeView] = {}
        self._served: dict[str, RouteView | ComposeView] = {}
        """Those that are answered before Quart, by endpoint."""
        self._adapter: MapAdapter | None = None
        """None: Quart decides about every request."""
        self._matches: BoundedCache[tuple[str, bytes], Match] = BoundedCache(
            _KNOWN_MAX, _KNOWN_SIZE, size_of=lambda asked: len(asked[1])
        )
        self._known = self._matches.entries

    def add(self, endpoint: str, route: RouteView, function: object) -> None:
        """Take a configured route, which Quart knows as ``endpoint`` and calls by ``function``."""
        self._routes[endpoint] = route
        self.views[endpoint] = View(route.rule, function)

    def add_handler(self, endpoint: str, handler: ComposeView) -> None:
        """Take a handler of ``@app.compose``, which Quart knows as ``endpoint``."""
        self._handlers[endpoint] = handler

    def open(
        self, context: GatewayContext, url_map: UmbelMap, view_functions: Mapping[str, object], found: Sequence[Hook]
    ) -> None:
        """Decide as the configuration says, report hooks on stderr and in a record, and close ``url_map`` to new rules.

        ``url_map`` and ``view_functions`` are Quart's of the application; ``found`` is what ``find_hooks`` finds in it.

        Raises:
            ConfigError: hooks = "python" would pass by a hook that may be a login, and a route says nothing of auth.
        """
        config = context.config
        mode = config.server.hooks
        if mode == "python":
            _check_auth(config, [hook for hook in found if hook.may_refuse])
        self.is_open = url_map.serves = True
        self._url_map = url_map
        self.hooks = tuple(hook.phrase for hook in found)
        self.before_quart = mode == "python" or (mode == "auto" and not found)
        self._served = {**self._routes} if self.before_quart else {}
        if mode != "all" and not found:
            self._served |= {name: each for name, each in self._handlers.items() if _is_own(view_functions, name, each)}
        if self._served:
            self._adapter = url_map.bind("")
        if found and (self._routes or self._handlers) and mode != "all":
            self._report(context.serving.recorder)

    def close(self) -> None:
        """The application no longer serves: Quart decides about every request, and what comes may be registered."""
        self.is_open = False
        if self._url_map is not None:
            self._url_map.serves = False
        self._url_map = None
        self.before_quart = False
        self.hooks = ()
        self._served = {}
        self._adapter = None
        self._known.clear()

    def find(self, method: str, target: bytes) -> Match | None:
        """The route of the table that answers this request; None: Quart decides.

        ``target`` is as it came, ``/path?query``. The Host field and what the server says of a root path are not looked
        at.
        """
        path, mark, query = target.partition(b"?")
        match: Match | None
        try:
            match = self._known[method, path]
        except KeyError:
            match = self._match(method, path)
        if mark and match is not None and forbidden_in_query(query):
            return None
        return match

    def _match(self, method: str, raw: bytes) -> Match | None:
        # The path of a request that begins with two slashes is redirected: werkzeug would match it as if with one.
        if self._adapter is None or not raw.startswith(b"/") or raw.startswith(b"//") or method == "OPTIONS":
            return None
        try:
            check_path(raw)
            path = unquote_to_bytes(raw).decode()
            rule, values = self._adapter.match(path, method, return_rule=True)
        except (RequestError, HTTPException):
            return None
        # werkzeug compares methods in upper case, but they are case-sensitive.
        if rule.endpoint not in self._served or path in PATHS or method not in (rule.methods or ()):
            return None
        match = Match(self._served[rule.endpoint], cast("QuartRule", rule), values, path)
        if all(type(value) in _IMMUTABLE for value in values.values()):
            self._matches.add((method, raw), match)
        return match

    def _report(self, recorder: Recorder) -> None:
        what = ", ".join(self.hooks)
        if self.before_quart and self._routes:
            sentence = f'configured routes are answered before Quart (hooks = "python"), and pass by {what}'
        else:
            routes = "configured routes go" if self._routes else "composing handlers go"
            sentence = f"{routes} through Quart, which costs speed, because of {what}"
        say(f"warning: {sentence}")
        recorder.record(LogMessage("warning", EVENT, sentence))


def _is_own(view_functions: Mapping[str, object], endpoint: str, handler: ComposeView) -> bool:
    """Whether Quart would call the handler's own view, and no hooks of a blueprint beside."""
    return view_functions.get(endpoint) is handler.view and "." not in endpoint


def _check_auth(config: Config, logins: list[Hook]) -> None:
    """Check that each route of ``config`` says something of auth if there are ``logins``: hooks that may be one.

    Raises:
        ConfigError: some say nothing. Nobody's login is opened in silence.
    """
    if not logins:
        return
    hooks = ", ".join(hook.phrase for hook in logins)
    reason = (
        f'says nothing of auth, and hooks = "python" passes by {hooks}; write auth = "none" if the route is to be'
        ' public, or hooks = "auto"'
    )
    silent: list[KeyPath] = [("routes", index) for index, each in enumerate(config.routes) if each.auth is None]
    if silent:
        raise ConfigError([ConfigProblem(config.where(at), None, dotted(at), reason) for at in silent])
