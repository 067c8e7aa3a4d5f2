"""The sections ``[cors]`` and ``[headers]``: what browsers may do with responses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ...core.http.forward_all import STAR
from .constraints import ConstraintViolation, enforce
from .section import AS_TUPLE, Section
from .values.types import ExposedHeader, HeaderName, Headers, Method
from .values.units import Delay

_SCHEME, _HOST = r"[a-z][a-z0-9+.-]*+", r"(?:\*\.)?[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+|\[[0-9a-f:.]++\]"
_ORIGIN = re.compile(rf"\A({_SCHEME})://({_HOST})(?::([1-9][0-9]{{0,4}}))?")
_PORT_MAX = 65535
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label with which browsers read a host as an IPv4 address (WHATWG URL section 3.5, "ends in a number")."""
_SHARED_LABELS = frozenset({"ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"})
"""Labels below which many countries register names, as in co.uk."""
_SHARED_DOMAINS = frozenset(
    {"azurewebsites.net", "cloudfront.net", "firebaseapp.com", "fly.dev", "github.io", "gitlab.io", "herokuapp.com"}
    | {"netlify.app", "onrender.com", "pages.dev", "s3.amazonaws.com", "surge.sh", "vercel.app", "web.app"}
    | {"workers.dev"}
)
"""Domains whose labels belong to customers. The public suffix list has all of them, and changes daily."""
_CORS_PREFIX = "access-control-"
_FIXED = frozenset(
    {"content-type", "content-encoding", "content-range", "date", "location", "vary"}
    | {"allow", "cache-control", "www-authenticate"}
)
"""Fields that belong to one response (its content or status), or without which caches and clients go wrong."""
_NEVER_SET = frozenset({"etag", "set-cookie"})
"""Fields that responses may lack, but whose values belong to one response."""
_ELSEWHERE = {"cache-control": ", and write cache_control in answer of a route"}
_NEVER_EXPOSED = frozenset({"set-cookie", "set-cookie2"})
"""Fields that no page can read (Fetch standard, "forbidden response-header name")."""


def _origin(value: str) -> str:
    if value == STAR:
        return value
    if value == "null":
        raise ValueError(
            '"null" is the origin of every sandboxed document and local file, so it cannot be allowed; remove it'
        )
    if not value.isascii():
        raise ValueError(f'browsers send the host of "{value}" in ASCII; write its form with xn--…')
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        if _ORIGIN.fullmatch(value.lower().removesuffix(".")):
            raise ValueError(f'"{value}" is not the origin of its host without a dot; remove the dot at its end')
        raise ValueError(
            f'"{value}" is not an origin; write scheme, host and port without a path, such as "https://app.example",'
            ' or "https://*.app.example" for any one label'
        )
    scheme, host, port = match.groups()
    if port is not None and _DEFAULT_PORTS.get(scheme) == port:
        raise ValueError(f'browsers leave out the port of "{value}"; remove :{port}')
    if int(port or 0) > _PORT_MAX:
        raise ValueError(f'"{value}" has a port over {_PORT_MAX}')
    _check_wildcard(value, host)
    if scheme in _DEFAULT_PORTS and (form := _address_as_sent(host)) != host:
        raise ValueError(f'"{value}" has an address in a form that no browser sends{form and f"; write {form}"}')
    return value.lower()


def _address_as_sent(host: str) -> str:
    """The form in which browsers send a host (WHATWG URL section 3.5); empty for an address that they may not accept.

    A host that is no address stays as it is. Of IPv4 only the form with four decimal numbers is read.
    """
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1])
            if (v4 := address.ipv4_mapped) is not None:  # Some versions of Python write it with dots, browsers do not.
                return f"[::ffff:{int(v4) >> 16:x}:{int(v4) & 0xFFFF:x}]"
            return f"[{address.compressed}]"
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        return ""
    return host


def _check_wildcard(value: str, host: str) -> None:
    """Check that the rest of a host after ``*.`` belongs to one owner, as far as its form tells."""
    if not host.startswith("*."):
        return
    rest = host.removeprefix("*.")
    labels = rest.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f'"{value}" has a wildcard in an address; write each address')
    if len(labels) == 1 and rest != "localhost":
        raise ValueError(f'"{value}" would allow the sites of many owners; write at least two labels after "*."')
    of_country = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SHARED_LABELS
    if of_country or rest in _SHARED_DOMAINS:
        raise ValueError(f'"{value}" would allow the sites of many owners; write a domain of your own after "*."')


Origin = Annotated[str, AfterValidator(_origin)]
"""An allowed origin in lower case, with or without a wildcard label; or ``*``."""


def _cors_constraints(cors: Cors) -> Iterator[ConstraintViolation]:
    """Yield the violations of a CORS table: a "*" beside credentials or other origins, and items without effect."""
    for key in ("origins", "headers", "expose"):
        if cors.credentials and STAR in getattr(cors, key):
            yield ConstraintViolation(
                f'"*" in {key} and credentials = true exclude each other: browsers refuse it; write each value',
                (key, "credentials"),
            )
    if STAR in cors.origins and len(cors.origins) > 1:
        yield ConstraintViolation('"*" in origins allows every origin; remove the others, or "*"', ("origins",))
    for origin in dict.fromkeys(each for each in cors.origins if cors.origins.count(each) > 1):
        yield ConstraintViolation(f'"{origin}" is in origins more than once; write it once', ("origins",))
    for name in cors.expose:
        if name in _NEVER_EXPOSED:
            yield ConstraintViolation(f'no browser lets a page read "{name}"; remove it', ("expose",))


class Cors(Section):
    """Cross-origin requests of browsers (CORS): which pages of other origins may read the answers."""

    origins: Annotated[tuple[Origin, ...], Field(strict=False, min_length=1)]
    """The origins whose pages may read the answers, such as "https://app.example". "https://*.app.example" stands for
    any one label in place of the *; the domain after it must be your own. "*": any page, but without credentials."""
    methods: Literal["route"] | Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = "route"
    """The methods that pages may use. route: those of the route."""
    headers: Annotated[tuple[ExposedHeader, ...], AS_TUPLE] = ("authorization", "content-type")
    """The header fields that pages may send, beside those that browsers always allow. "*": all but authorization. A
    name with an underscore needs [server] underscore_headers = "keep"."""
    expose: Annotated[tuple[ExposedHeader, ...], AS_TUPLE] = ("etag", "umbel-completed", "server-timing")
    """The header fields of answers that pages may read, beside those that browsers always allow. "*": all."""
    credentials: bool = False
    """Whether pages may send cookies, and read the answers to such requests."""
    max_age: Delay = 7200.0
    """The time for which a browser may remember the answer to a preflight. Chromium remembers it for at most 2h."""
    private_network: bool = False
    """Whether pages of public addresses may send requests to this gateway at a private address."""

    _checked = model_validator(mode="after")(enforce(_cors_constraints))


def _header_constraints(headers: ResponseHeaders) -> Iterator[ConstraintViolation]:
    """Yield the violations of a table of response headers: a field that must stay, or that is in both keys."""
    for key in ("set", "remove"):
        for name in getattr(headers, "set_" if key == "set" else "remove"):
            if name.startswith(_CORS_PREFIX):
                yield ConstraintViolation(f'"{name}" belongs to CORS; write a [cors] table', (key,))
            elif name in _FIXED or (key == "set" and name in _NEVER_SET):
                yield ConstraintViolation(
                    f'"{name}" cannot be changed for all responses; remove it{_ELSEWHERE.get(name, "")}', (key,)
                )
            elif key == "remove" and name in headers.set_:
                yield ConstraintViolation(f'"{name}" is in set and in remove; remove it from one', ("remove", "set"))


class ResponseHeaders(Section):
    """Header fields of all answers: a preset of security fields, and changes to it."""

    preset: Literal["api", "web", "off"] = "api"
    """The security fields of an answer that does not have them. api: X-Content-Type-Options: nosniff and
    Referrer-Policy: no-referrer. web: also Content-Security-Policy: frame-ancestors 'none',
    Cross-Origin-Resource-Policy: same-origin, and Strict-Transport-Security for one year if the client uses https.
    off: none."""
    set_: Headers = Field(alias="set", default_factory=dict)
    """Fields of every answer, in place of a field of the same name; in a proxy route only where there is none.
    Strict-Transport-Security is sent to clients that use https only. Fields that belong to one answer (Cache-Control,
    ETag, Set-Cookie …) cannot be set for all."""
    remove: Annotated[tuple[HeaderName, ...], AS_TUPLE] = ()
    """Fields that no answer has."""

    _checked = model_validator(mode="after")(enforce(_header_constraints))
