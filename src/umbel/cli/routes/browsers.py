"""What a configuration says to browsers in its response to one request: CORS, security fields, and preflights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...composition.plan.plan import Plan
from ...config.loading.load import LoadedConfig
from ...config.schema.sections import Config, KeyPath
from ...core.networks import Networks
from ...gateway.browsers.browser_fields import BrowserRules
from ...gateway.browsers.cors import ASKED_METHOD
from ...gateway.browsers.preflight import is_preflight, preflight_rules, rules_at
from ...gateway.request.client_origin import origin_of
from ...gateway.routing.encoded_slashes import path_to_match
from .explanation import vary_of
from .matching import map_of

_ASKED_HEADERS = "access-control-request-headers"
_HSTS = "strict-transport-security"
_SAFE_METHODS = ("GET", "HEAD", "POST")
"""The methods that browsers allow without a word of the response (Fetch standard, "CORS-safelisted method")."""


class BrowserAnswer(NamedTuple):
    """What the response to a request says to browsers."""

    origin: str | None
    """Origin of the request; None without one."""
    preflight: bool
    """Whether the gateway answers the request as a preflight, with 204 and no call."""
    origin_allowed: bool | None
    """Whether pages of the request's Origin may read the response; None without Origin, or without CORS rules."""
    refused: tuple[str, ...]
    """What of a preflight's request the browser would not send: its method, and names of header fields."""
    rules: str | None
    """The file and line of the CORS rules; None if there are none."""
    fields: tuple[tuple[str, str], ...]
    """The fields that the gateway adds, and Vary."""

    def lines(self) -> Iterator[str]:
        """Return the answer as lines of text."""
        if self.rules is None:
            yield "browsers no CORS rules: pages of another origin can read what the route itself allows"
        elif self.origin is None:
            yield f"browsers CORS rules [{self.rules}]; write -H 'Origin: …' for what a page gets"
        elif self.origin_allowed:
            yield f"browsers {self.origin} is allowed [{self.rules}]"
        else:
            yield f"browsers {self.origin} is not allowed [{self.rules}]: its pages cannot read the answer"
        if self.refused:
            yield f"         not allowed, so the browser does not send the request: {', '.join(self.refused)}"
        for name, value in self.fields:
            note = ", if the client uses https" if name == _HSTS else ""
            yield f"         {name}: {value}{note}"


def browser_answer(
    loaded: LoadedConfig,
    plans: Sequence[Plan],
    method: str,
    path: str,
    asked: Sequence[tuple[str, str]],
    route: int | None = None,
) -> BrowserAnswer:
    """Return what the response to a request, with the header fields ``asked``, says to browsers.

    The client uses https and is no trusted proxy. ``route``: the index of the route that answers; None: no route does.
    """
    config = loaded.config
    browsers = BrowserRules(config)
    for index, plan in enumerate(plans):
        browsers.add(str(index), browsers.of(plan.route.cors, proxied=plan.proxy is not None))
    raw = [(name.lower().encode(), value.encode("utf-8")) for name, value in asked]
    client = origin_of("192.0.2.1", raw, Networks(()), scheme="https")
    adapter = map_of(plans).adapter_for_host(client.host)
    by_name, decoded = client.fields.by_name, path_to_match(path.partition("?")[0].encode())
    at, preflight = rules_at(browsers, adapter, decoded, method), None
    if is_preflight(method, by_name):
        preflight = preflight_rules(browsers, adapter, decoded, by_name)
        at = preflight or at
    fields: list[tuple[bytes, bytes]] = []
    if preflight is None and route is not None and (names := vary_of(config, plans[route])):
        fields.append((b"vary", ", ".join(names).encode()))
    at.browser_fields.add(fields, client)
    origin, cors = by_name.get("origin"), at.browser_fields.cors
    allowed = None if origin is None or cors is None else cors.allows(origin)
    place = None if cors is None else config.where(_place(config, at.route))
    said = tuple((name.decode(), loaded.hide(value.decode("latin-1"))) for name, value in fields)
    refused = tuple(_refused(by_name, dict(said))) if preflight is not None and allowed else ()
    return BrowserAnswer(origin, preflight is not None, allowed, refused, place, said)


def _refused(asked: Mapping[str, str], said: Mapping[str, str]) -> Iterator[str]:
    """Yield the method and the names of header fields that a preflight asks for and its response does not allow."""
    method = asked[ASKED_METHOD.lower()]
    if method not in {*_SAFE_METHODS, *said["access-control-allow-methods"].split(", ")}:
        yield method
    allowed = {*said.get("access-control-allow-headers", "").split(", ")}
    for name in filter(None, (each.strip().lower() for each in asked.get(_ASKED_HEADERS, "").split(","))):
        if name not in allowed and ("*" not in allowed or name == "authorization"):
            yield name


def _place(config: Config, endpoint: str) -> KeyPath:
    """The key path of the CORS rules of a route."""
    own = endpoint and config.routes[int(endpoint)].cors is not None
    return ("routes", int(endpoint), "cors") if own else ("cors",)
