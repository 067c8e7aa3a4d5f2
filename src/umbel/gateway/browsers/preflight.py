"""Preflights: the OPTIONS request with which a browser asks for permission before a cross-origin request.

A preflight is answered before a login, a hook or a view sees it, because browsers send it without credentials. It is
answered with 204 whatever its path and its Origin; only its fields give the permission. So a path without a route gets
permission too: the page can then read the 404. A server without the capacity to admit a preflight sends the same 204
itself (``Umbel.is_preflight``). What the server refuses for its head (a foreign host, a denied network, a malformed or
large head) is refused as a preflight too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from ...config.schema.values.types import Method
from ...core.http.probe_paths import PROBES
from .browser_fields import BrowserFields, BrowserRules, PreflightFields
from .cors import ASKED_METHOD, ASKED_PRIVATE_NETWORK

if TYPE_CHECKING:
    from werkzeug.routing import MapAdapter, Rule

_ASKED_METHOD, _ASKED_PRIVATE_NETWORK = ASKED_METHOD.lower(), ASKED_PRIVATE_NETWORK.lower()
_METHODS: Sequence[str] = get_args(Method)
_PROBE_METHODS = ("GET", "HEAD", "OPTIONS")


class PathRules(NamedTuple):
    """What a path has for browsers."""

    browser_fields: BrowserFields
    route: str
    """The endpoint of the route; empty if the path has no route."""
    rule: str
    """The route's rule, or empty."""
    methods: Sequence[str]
    """The methods of the routes with these browser fields, or of a probe; without a route all methods."""


def rules_at(browsers: BrowserRules, adapter: MapAdapter, path: str, method: str) -> PathRules:
    """The rules of the route that a request with ``method`` has, or would be redirected to.

    If no route at the path has the method: those of the first of its routes. Without a route, and for a probe: those of
    the application.
    """
    if path in PROBES and not _has_rule(adapter, path):
        return PathRules(browsers.default, "", "", _PROBE_METHODS)
    found = _routes(adapter, path, method)
    if not found:
        return PathRules(browsers.default, "", "", _METHODS)
    fields = browsers.at(found[0].endpoint)
    methods = {name for rule in found if browsers.at(rule.endpoint) is fields for name in rule.methods or ()}
    return PathRules(fields, found[0].endpoint, found[0].rule, sorted({*methods, "OPTIONS"}))


def _has_rule(adapter: MapAdapter, path: str) -> bool:
    """Whether a rule is ``path`` itself. Such a route takes the place of a probe, for all methods."""
    for method in adapter.allowed_methods(path):
        with suppress(HTTPException):  # The route of one method may redirect the path.
            if adapter.match(path, method, return_rule=True)[0].rule == path:
                return True
    return False


def _routes(adapter: MapAdapter, path: str, method: str) -> list[Rule]:
    """The route of a path and method, or the path's routes of other methods, of the most specific host first."""
    for _ in range(2):  # A path is redirected once: to the path with single slashes, and with or without a last one.
        try:
            return [adapter.match(path, method, return_rule=True)[0]]
        except RequestRedirect as error:
            path = unquote(urlsplit(error.new_url).path)
        except MethodNotAllowed as error:
            found: list[Rule] = []
            for name in sorted(error.valid_methods or ()):
                with suppress(HTTPException):  # The route of one method may redirect the path.
                    found.append(adapter.match(path, name, return_rule=True)[0])
            # The most specific host first, as for a request whose method fits.
            return sorted(found, key=lambda rule: (not rule.host, "*" in (rule.host or "")))
        except HTTPException:
            return []
    return []


def is_preflight(method: str, fields: Mapping[str, str]) -> bool:
    """Whether a request is a preflight; ``fields`` by name in lower case."""
    return method == "OPTIONS" and "origin" in fields and _ASKED_METHOD in fields


def preflight_rules(
    browsers: BrowserRules, adapter: MapAdapter, path: str, fields: Mapping[str, str]
) -> PathRules | None:
    """The rules for the response to a preflight; None if the gateway has no CORS rules for the path.

    Args:
        browsers: the rules of the application.
        adapter: matches paths.
        path: the decoded path of the request.
        fields: the request's fields, by name in lower case.
    """
    at = rules_at(browsers, adapter, path, fields[_ASKED_METHOD])
    if at.browser_fields.cors is None:
        return None
    private_network = fields.get(_ASKED_PRIVATE_NETWORK) == "true"
    answered = PreflightFields(at.browser_fields, at.methods, private_network=private_network)
    return at._replace(browser_fields=answered)
