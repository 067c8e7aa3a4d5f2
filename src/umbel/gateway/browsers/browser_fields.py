"""Browser fields: the last change of a response's header fields, for CORS and for ``[headers]``.

Theory
------
Every response whose head the gateway or its server writes passes ``BrowserFields.add`` once, just before it is sent:
``response/reply.complete`` and ``response/sending.send_response`` call it for requests, ``quart/websocket.py`` for
refused handshakes, and ``Umbel.error_response_fields`` for error responses of the server itself. So a page can read
each of them.

The fields to add depend on the route (its CORS rules), on Origin and on the client's scheme. They are cached by the
last two.

``add`` is on the path of every request. It looks at each name once, and calls a function only if it finds a name that
it must change.

* *CORS fields* of an upstream, a handler or a view are removed where the gateway has rules: two values of
  Access-Control-Allow-Origin are as good as none, and a foreign value could allow more than the rules.
* *Vary* names Origin in each response of an application with ``[cors]``, also where the origin is not allowed or
  missing. Otherwise a shared cache would give the response for one origin to another one.
* *A field of a preset* is added only where the response has none of that name, because its author knows it better. A
  field in ``set`` replaces, except in a proxy route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from ...net.bounded_cache import BoundedCache
from ..request.request_fields import Field
from .cors import FIELD_NAMES, CorsRules
from .security_fields import SecurityFields

if TYPE_CHECKING:
    from ...config.schema.browsers import Cors
    from ...config.schema.sections import Config
    from ..request.client_origin import ClientOrigin

_VARY = b"vary"
_ORIGIN = "Origin"
_ORIGINS_MAX, _ORIGIN_SIZE = 256, 256
_VARY_MAX, _VARY_SIZE = 256, 1024
_Key = tuple[str, str]
"""The scheme and the origin of a client."""


class BrowserFields:
    """What is added to, and removed from, the fields of the responses of one route. Holds no data of a request.

    Args:
        security: the fields of ``[headers]``.
        cors: the CORS rules of the route; None: the gateway has none.
        varies: the names of request fields to add to Vary.
    """

    __slots__ = ("_known", "_replaced", "_security", "_touched", "_varied", "_varies", "_vary", "cors")

    def __init__(self, security: SecurityFields, cors: CorsRules | None, varies: tuple[str, ...]) -> None:
        self.cors = cors
        self._security = security
        self._varies = varies
        self._vary: tuple[Field, ...] = ((_VARY, _list(varies)),) if varies else ()
        """The field Vary of a response that has none."""
        self._known: BoundedCache[_Key, tuple[Field, ...]] = BoundedCache(
            _ORIGINS_MAX, _ORIGIN_SIZE, size_of=lambda key: len(key[1])
        )
        """The fields that are added, by scheme and origin."""
        self._varied: BoundedCache[bytes, bytes] = BoundedCache(_VARY_MAX, _VARY_SIZE)
        """Values of Vary with the names of ``varies``, by the value of the response."""
        self._replaced = security.removed | security.replaced | (FIELD_NAMES if cors is not None else frozenset())
        """The names of fields that a response loses."""
        self._touched = self._replaced | security.names | ({_VARY} if varies else frozenset())
        """The names of fields of which a response has at most one afterwards."""

    def key_of(self, client: ClientOrigin) -> _Key:
        """What the fields to add depend on."""
        return client.scheme, "" if self.cors is None else client.fields.by_name.get("origin", "")

    def add(self, fields: list[Field], client: ClientOrigin) -> None:
        """Change ``fields``, those of a response to ``client``. Names are in lower case."""
        key = self.key_of(client)
        known, varied, touched = self._known.entries, self._varied.entries, self._touched
        added = known[key] if key in known else self._make(*key)
        vary = self._vary
        for place, (name, value) in enumerate(fields):
            if name not in touched:
                continue
            if name != _VARY:
                self._change(fields, added)
                return
            if vary:  # The first Vary of the response.
                fields[place] = _VARY, varied[value] if value in varied else self._merge(value)
                vary = ()
        fields += vary
        fields += added

    def _change(self, fields: list[Field], added: tuple[Field, ...]) -> None:
        """Do as ``add``, for fields with a name that must be removed or must not be added."""
        kept = [field for field in fields if field[0] not in self._replaced]
        names = {name for name, _ in kept}
        places = [place for place, (name, _) in enumerate(kept) if name == _VARY]
        if self._vary and places:
            kept[places[0]] = _VARY, self._merge(kept[places[0]][1])
        elif self._vary:
            kept += self._vary
        fields[:] = [*kept, *(field for field in added if field[0] not in names)]

    def _make(self, scheme: str, origin: str) -> tuple[Field, ...]:
        """The fields to add, apart from Vary, to a response that has none of their names."""
        added = self._security.for_scheme(scheme)
        if origin and self.cors is not None and self.cors.allows(origin):
            added += self._cors_fields(self.cors, origin)
        self._known.add((scheme, origin), added)
        return added

    def _cors_fields(self, cors: CorsRules, origin: str) -> tuple[Field, ...]:
        return cors.fields(origin)

    def _merge(self, value: bytes) -> bytes:
        """A value of Vary with the names of ``varies``."""
        members = [member.strip(b" \t") for member in value.split(b",")]
        present = {member.lower() for member in members}
        more = [name.encode() for name in self._varies if name.lower().encode() not in present]
        merged = value if b"*" in present or not more else b", ".join([*filter(None, members), *more])
        self._varied.add(value, merged)
        return merged


class PreflightFields(BrowserFields):
    """The same for the response to one preflight.

    Args:
        of: the browser fields of the route, which has CORS rules.
        methods: the methods of the route.
        private_network: whether the browser asks for a request from a public to a private address.
    """

    __slots__ = ("_methods", "_private_network")

    def __init__(self, of: BrowserFields, methods: Sequence[str], *, private_network: bool) -> None:
        reads = of.cors.preflight_reads if of.cors is not None else ()
        super().__init__(of._security, of.cors, (*of._varies, *reads))
        self._methods = methods
        self._private_network = private_network

    def _cors_fields(self, cors: CorsRules, origin: str) -> tuple[Field, ...]:
        return cors.preflight_fields(origin, self._methods, private_network=self._private_network)


class BrowserRules:
    """The browser fields of all routes of one application."""

    def __init__(self, config: Config) -> None:
        self._security = SecurityFields(config.headers)
        self._varies = (_ORIGIN,) if config.cors is not None else ()
        cors = None if config.cors is None else CorsRules(config.cors)
        self.default = BrowserFields(self._security, cors, self._varies)
        """Those of responses without a configured route, and of routes without CORS rules of their own."""
        self._by_endpoint: dict[str, BrowserFields] = {}
        """Those of routes with CORS rules of their own, by Quart's endpoint."""

    @property
    def has_overrides(self) -> bool:
        """Whether any route has CORS rules of its own."""
        return bool(self._by_endpoint)

    def add(self, endpoint: str, fields: BrowserFields) -> None:
        """Note the browser fields of a route; ``endpoint`` is its endpoint in Quart."""
        if fields is not self.default:
            self._by_endpoint[endpoint] = fields

    def of(self, cors: Cors | Literal[False] | None, *, proxied: bool = False) -> BrowserFields:
        """The browser fields of a route, by its key ``cors``.

        ``proxied``: the route is a proxy route, where the fields in ``set`` of ``[headers]`` replace none.
        """
        security = self._security.where_absent() if proxied else self._security
        if cors is None:
            unchanged = security.replaced == self._security.replaced
            return self.default if unchanged else BrowserFields(security, self.default.cors, self._varies)
        if cors is False:
            return BrowserFields(security, None, self._varies)
        return BrowserFields(security, CorsRules(cors), (_ORIGIN,))

    def at(self, endpoint: str) -> BrowserFields:
        """The browser fields of the responses of an endpoint."""
        return self._by_endpoint.get(endpoint, self.default)


def _list(names: Iterable[str]) -> bytes:
    return ", ".join(names).encode()
