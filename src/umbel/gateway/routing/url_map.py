"""Map of routes of a Quart application, with rules for some hosts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from quart.routing import QuartMap, QuartRule

from ...composition.plan.lazy_rule import LazyRule
from ..request.paths import raw_path
from ..request_context import SCOPE_KEY
from .encoded_slashes import SlashAdapter, holds_encoded_slash, path_to_match
from .host_map import HostMap, joined

if TYPE_CHECKING:
    from quart.wrappers.base import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter


class UmbelRule(LazyRule, QuartRule):
    """``LazyRule`` of a Quart application."""


class UmbelMap(HostMap, QuartMap):
    """``HostMap`` that Quart can bind to its requests."""

    def bind_to_request(
        self, request: BaseRequestWebsocket, subdomain: str | None, server_name: str | None
    ) -> MapAdapter:
        """The adapter for a request of Quart.

        The host is the client's as ``ClientOrigin`` has it, because ``request.host`` is empty for some valid hosts. In
        ``app.test_request_context`` it is that of the request.
        """
        own = super().bind_to_request(request, subdomain, server_name)
        ctx = cast("Mapping[str, Any]", request.scope).get(SCOPE_KEY)
        host = request.host if ctx is None else ctx.origin.host
        maps = [cast("UmbelMap", self.by_host[pattern]) for pattern in self.patterns_for(host)]
        adapter = joined(own, [each.bind_to_request(request, subdomain, server_name) for each in maps])
        if self.keeps_slashes and not request.root_path:
            raw = raw_path(request.scope["path"], request.scope.get("raw_path"))
            if holds_encoded_slash(raw):
                return SlashAdapter(adapter, path_to_match(raw))
        return adapter
