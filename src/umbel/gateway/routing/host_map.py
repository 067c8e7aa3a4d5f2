"""Map of routes: werkzeug's map, with rules for some hosts only.

The host of a request is compared before its path. Rules of one host pattern have a map of their own. The maps that fit
the host of a request are asked in this order, and the first one that has the path and the method decides:

1. the map of the host with its port, then of the host;
2. the map of the wildcard with the port, then of the wildcard: ``*.shop.example`` fits ``a.shop.example``, and neither
   ``shop.example`` nor ``a.b.shop.example``;
3. the rules without a host.

``url_for`` knows only the rules without a host. A wildcard stands for one label, as in certificates. Letter case and
one dot at the end of a host do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from werkzeug.datastructures import ImmutableDict
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, MapAdapter, Rule, WebsocketMismatch

from ...composition.proxy.any_method import ANY_METHOD
from ...core.errors import RequestError
from ...core.http.host import is_host, one_form, split_host
from ..request.converters import CONVERTERS

if TYPE_CHECKING:
    from werkzeug.routing import RuleFactory

    from ...composition.plan.plan import Plan
    from ..request.client_origin import ClientOrigin

_Rule = TypeVar("_Rule", bound=Rule)

MALFORMED_HOST = "The host is not well formed."
"""The detail of the refusal of a malformed host."""


def refuse_registration(what: str) -> NoReturn:
    """Refuse the registration ``what`` while the application is serving.

    Raises:
        AssertionError: always, as in Quart and Flask.
    """
    raise AssertionError(
        f"'{what}' was called while the application is serving. At startup it was decided which requests are answered"
        " without Quart, so this registration would not apply to all requests. Register everything before the"
        " application starts, or in a function that runs at its startup (before_serving)."
    )


class HostMap(Map):
    """Map of routes with rules for hosts, and converters whose values JSON can hold; see the module.

    It refuses new rules while ``serves``.
    """

    default_converters = ImmutableDict({**Map.default_converters, **CONVERTERS})
    serves = False
    """Whether the application is serving."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.keeps_slashes: set[str] = set()
        """The endpoints of the rules whose values may hold encoded slashes."""
        self.by_host: dict[str, HostMap] = {}
        """The maps of rules that have a host, by its pattern."""
        super().__init__(*args, **options)

    def add(self, rulefactory: RuleFactory) -> None:
        """Add rules. A rule with a host goes into the map of that host, unless ``host_matching`` is on.

        Raises:
            AssertionError: the application is serving.
        """
        if self.serves:
            refuse_registration("url_map.add")
        host = rulefactory.host if isinstance(rulefactory, Rule) and not self.host_matching else None
        if host is None:
            super().add(rulefactory)
            return
        pattern = one_form(host)
        of_host = self.by_host.get(pattern)
        if of_host is None:
            of_host = self.by_host[pattern] = type(self)(strict_slashes=self.strict_slashes)
            of_host.converters = self.converters
        super(HostMap, of_host).add(rulefactory)

    def check_origin(self, origin: ClientOrigin) -> None:
        """Check that the host of a request is well-formed; a malformed one would get the rules of other hosts.

        A request without Host, or with an empty one, gets the rules without a host. A malformed host that a trusted
        proxy reports is refused only if there are rules for hosts; otherwise it is ignored.

        Raises:
            RequestError: 400, the host is malformed.
        """
        host = origin.fields.get("host")
        if (host and not is_host(host)) or (origin.misreports_host and self.by_host):
            raise RequestError(400, MALFORMED_HOST)

    def patterns_for(self, host: str | None) -> tuple[str, ...]:
        """The keys of ``by_host`` that fit a host (``name`` or ``name:port``), in the order in which they are asked."""
        if not host or not self.by_host:
            return ()
        name, port = split_host(host.lower())
        wildcard = "*." + name.partition(".")[2]
        wanted = (f"{name}:{port}", name, f"{wildcard}:{port}", wildcard)
        return tuple(pattern for pattern in wanted if pattern in self.by_host)

    def adapter_for(self, patterns: Sequence[str], server_name: str = "") -> MapAdapter:
        """An adapter without a request, which asks the maps of these ``patterns`` before the rules without a host.

        ``server_name`` is the host in the URLs of redirects.
        """
        maps = [self.by_host[pattern] for pattern in patterns]
        return joined(self.bind(server_name), [each.bind(server_name) for each in maps])

    def adapter_for_host(self, host: str | None) -> MapAdapter:
        """An adapter without a request for the rules that a host has; None: for those without a host."""
        return self.adapter_for(self.patterns_for(host))


def methods_of(plans: Iterable[Plan]) -> Collection[str]:
    """The methods of the routes of one rule: those of all ``plans`` in alphabetical order, or ``ANY_METHOD``."""
    each_methods = [plan.methods for plan in plans]
    if any(methods is ANY_METHOD for methods in each_methods):
        return ANY_METHOD
    return sorted({method for methods in each_methods for method in methods})


def rule_for_any_method(rule_class: type[_Rule], path: str, endpoint: str, host: str | None) -> _Rule:
    """Make a rule that matches every method but CONNECT and TRACE, OPTIONS too.

    werkzeug copies the methods that its constructor gets.
    """
    rule = rule_class(path, endpoint=endpoint, host=host)
    rule.methods = cast("set[str]", ANY_METHOD)
    return rule


def joined(own: MapAdapter, before: Sequence[MapAdapter]) -> MapAdapter:
    """An adapter that asks the maps of ``before`` and then that of ``own``."""
    return _JoinedAdapter(own, before) if before else own


class _JoinedAdapter(MapAdapter):
    """Adapter of several maps. ``before``: those that are asked before the map of ``own``."""

    def __init__(self, own: MapAdapter, before: Sequence[MapAdapter]) -> None:
        vars(self).update(vars(own))
        self._before = tuple(before)

    def match(self, *args: Any, **options: Any) -> Any:
        """The match of the first map that has the path and the method; as werkzeug's method.

        Raises:
            NotFound: no map has the path.
            MethodNotAllowed: some maps have the path, but not with this method.
            RequestRedirect: the first map that has the path redirects to another form of it.
        """
        allowed: dict[str, None] = {}
        for adapter in self._before:
            with suppress(NotFound, WebsocketMismatch):
                try:
                    return cast("Any", adapter.match)(*args, **options)
                except MethodNotAllowed as error:
                    allowed.update(dict.fromkeys(error.valid_methods or ()))
        try:
            return cast("Any", super().match)(*args, **options)
        except NotFound:
            if not allowed:
                raise
        except MethodNotAllowed as error:
            allowed.update(dict.fromkeys(error.valid_methods or ()))
        raise MethodNotAllowed(valid_methods=list(allowed))
