"""The section ``proxy`` of a route: a request that is passed on as it is, and its response too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .browsers import Origin
from .constraints import ConstraintViolation, enforce
from .section import AS_TUPLE, Section
from .traffic import Mirror, Split, traffic_constraints
from .values.types import CookieDomain, CookiePath, ExpressionText, HeaderName, Headers, UpstreamName
from .values.units import Duration, Size


def _field_constraints(rules: FieldRules) -> Iterator[ConstraintViolation]:
    """Yield a violation for each field that is in ``set`` and in ``remove``."""
    for name in rules.remove:
        if name in rules.set_:
            yield ConstraintViolation(
                f'"{name}" is in set and in remove; set replaces the field already, so remove it from remove',
                ("remove", "set"),
            )


class FieldRules(Section):
    """Changes to the header fields of a message that is passed on: remove first, then set, then add."""

    set_: Headers = Field(alias="set", default_factory=dict)
    """Fields in place of those of the same name, as templates. A field whose template gives no value is removed."""
    add: Headers = Field(default_factory=dict)
    """Fields beside those of the same name, as templates."""
    remove: Annotated[tuple[HeaderName, ...], AS_TUPLE] = ()
    """Fields that are not passed on."""

    _checked = model_validator(mode="after")(enforce(_field_constraints))


class Rewrite(Section):
    """Changes to fields of the response that name the upstream's host or paths."""

    location: bool = True
    """Whether a Location that names the upstream itself becomes one of the gateway: a path of the client's, without
    scheme and host. A Location that names any other host stays as it is."""
    cookie_domain: dict[CookieDomain, CookieDomain | Literal[""]] = Field(default_factory=dict)
    """New values of the attribute Domain of cookies, by the upstream's value. "": the attribute is removed."""
    cookie_path: dict[CookiePath, CookiePath] = Field(default_factory=dict)
    """New beginnings of the attribute Path of cookies, by the upstream's. The longest one that fits is replaced."""


class WebSocketRules(Section):
    """Which WebSocket connections are passed on."""

    origins: Annotated[tuple[Origin, ...], Field(strict=False, min_length=1)]
    """The origins whose pages may connect, written as in [cors]. Others get 403. A request without Origin is allowed,
    since browsers always send it."""


def _proxy_constraints(proxy: Proxy) -> Iterator[ConstraintViolation]:
    """Yield the violations of the constraints between the keys of one proxy."""
    for name in dict.fromkeys(proxy.fallback):
        if name == proxy.upstream:
            yield ConstraintViolation(f'"{name}" is the upstream itself; name others in fallback', ("fallback",))
        elif proxy.fallback.count(name) > 1:
            yield ConstraintViolation(f'"{name}" is in fallback more than once; write it once', ("fallback",))
    yield from traffic_constraints(proxy.upstream, proxy.split, proxy.split_key, proxy.mirror)


class Proxy(Section):
    """Passing on a request as it is to one upstream, and the response to the client. Bodies stream in both
    directions, and nothing is decoded."""

    upstream: UpstreamName
    """The name of the upstream. Of its keys, timeout, max_body, coalesce, redirects, user_agent and deadline_header
    are for calls only."""
    path: str | None = None
    """The path of the request to the upstream, as an RFC 6570 template with the forms {name} and {+name} of parameters
    of the path. {+name} is for a parameter <path:name> and keeps its slashes. The client's query follows; a query in
    the template goes before it and replaces parameters of the same names. Default: the client's path and query, byte
    for byte."""
    first_byte: Duration | Literal["off"] = 10.0
    """The longest time to the head of the response. A request whose body is sent may take longer, as long as the body
    moves."""
    idle_timeout: Duration | Literal["off"] = 300.0
    """The longest time without a byte of the response, after its head, and of sending a part of the request."""
    max_lifetime: Duration | Literal["off"] = "off"
    """The longest time of the whole request and response."""
    max_body: Size | Literal["off"] = "off"
    """The largest request body. It is never in memory as a whole."""
    preserve_host: bool = False
    """Whether the upstream gets the client's Host, instead of its own."""
    websocket: bool | WebSocketRules = False
    """Whether WebSocket connections are passed on; a table says from which origins. They need Umbel's own server."""
    forward_credentials: bool = False
    """Whether the upstream gets an Authorization that is for the gateway: one by which auth of the route has let the
    request in, or any Bearer if a section in auth reads header. API keys and the cookies and query parameters of tokens
    are never passed on."""
    request_headers: FieldRules = Field(default_factory=FieldRules)
    """Changes to the header fields of the request, after those of the upstream's headers."""
    response_headers: FieldRules = Field(default_factory=FieldRules)
    """Changes to the header fields of the response."""
    rewrite: Rewrite = Field(default_factory=Rewrite)
    """Changes to fields of the response that name the upstream's host or paths."""
    fallback: Annotated[tuple[UpstreamName, ...], AS_TUPLE] = ()
    """Further upstreams, tried in this order if first_byte passes or no head comes, as long as nothing of the request's
    body was sent."""
    split: Split = Field(default_factory=dict)
    """Shares of the requests that go to other upstreams, such as { v2 = "10%" }; the upstream gets the rest."""
    split_key: ExpressionText | None = None
    """A JMESPath expression on the request, such as client.ip or cookies.session: requests with the same value go to
    the same upstream. It reads path, query, headers, cookies and client. Default: each request gets an upstream at
    random."""
    mirror: Mirror | None = None
    """Copies of requests for another upstream, sent after the response. A body that came in pieces is not copied."""

    _checked = model_validator(mode="after")(enforce(_proxy_constraints))

    @property
    def destinations(self) -> tuple[str, ...]:
        """The names of the upstreams that may answer a request, upstream first, each once."""
        return tuple(dict.fromkeys((self.upstream, *self.fallback, *self.split)))
