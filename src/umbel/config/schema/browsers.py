"""The sections ``[cors]`` and ``[headers]``: what browsers may do with responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ...core.http.forward_all import STAR
from .constraints import ConstraintViolation, enforce
from .section import AS_TUPLE, Section
from .types import ExposedHeader, HeaderName, Headers, Method
from .units import Delay

_SCHEME, _HOST = r"[a-z][a-z0-9+.-]*+", r"(?:\*\.)?[a-z0-9_-]++(?:\.[a-z0-9_-]++)*+|\[[0-9a-f:.]++\]"
_ORIGIN = re.compile(rf"\A({_SCHEME})://({_HOST})(?::([1-9][0-9]{{0,4}}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_CORS_PREFIX = "access-control-"
_FIXED = frozenset({"content-type", "content-encoding", "content-range", "date", "location", "vary"})
"""Fields of a response that belong to its content, or without which caches and clients go wrong."""


def _origin(value: str) -> str:
    if value == STAR:
        return value
    if value == "null":
        raise ValueError(
            '"null" is the origin of every sandboxed document and local file, so it cannot be allowed; remove it'
        )
    match = _ORIGIN.fullmatch(value.lower())
    if match is None:
        raise ValueError(
            f'"{value}" is not an origin; write scheme, host and port without a path, such as "https://app.example",'
            ' or "https://*.app.example" for any one label'
        )
    scheme, host, port = match.groups()
    if port is not None and _DEFAULT_PORTS.get(scheme) == port:
        raise ValueError(f'browsers leave out the port of "{value}"; remove :{port}')
    _check_wildcard(value, host)
    return value.lower()


def _check_wildcard(value: str, host: str) -> None:
    """Check that the rest of a host after ``*.`` belongs to one owner, as far as its form tells."""
    labels = host.removeprefix("*.").split(".")
    if host.startswith("*.") and (labels[-1].isdigit() or (len(labels) == 1 and labels != ["localhost"])):
        raise ValueError(f'"{value}" would allow the sites of many owners; write at least two labels after "*."')


Origin = Annotated[str, AfterValidator(_origin)]
"""An allowed origin in lower case, with or without a wildcard label; or ``*``."""


def _cors_constraints(cors: Cors) -> Iterator[ConstraintViolation]:
    """Yield the violations of a CORS table: a "*" beside credentials, or beside other origins."""
    for key in ("origins", "headers", "expose"):
        if cors.credentials and STAR in getattr(cors, key):
            yield ConstraintViolation(
                f'"*" in {key} and credentials = true exclude each other: browsers refuse it; write each value',
                (key, "credentials"),
            )
    if STAR in cors.origins and len(cors.origins) > 1:
        yield ConstraintViolation('"*" in origins allows every origin; remove the others, or "*"', ("origins",))


class Cors(Section):
    """Cross-origin requests of browsers (CORS): which pages of other origins may read the answers."""

    origins: Annotated[tuple[Origin, ...], Field(strict=False, min_length=1)]
    """The origins whose pages may read the answers, such as "https://app.example". "https://*.app.example" stands for
    any one label in place of the *. "*": any page, but without credentials."""
    methods: Literal["route"] | Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = "route"
    """The methods that pages may use. route: those of the route."""
    headers: Annotated[tuple[ExposedHeader, ...], AS_TUPLE] = ("authorization", "content-type")
    """The header fields that pages may send, beside those that browsers always allow. "*": all but authorization."""
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
            elif name in _FIXED:
                yield ConstraintViolation(f'"{name}" cannot be changed for all responses; remove it', (key,))
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
    """Fields of every answer, in place of a field of the same name. Strict-Transport-Security is sent to clients that
    use https only."""
    remove: Annotated[tuple[HeaderName, ...], AS_TUPLE] = ()
    """Fields that no answer has."""

    _checked = model_validator(mode="after")(enforce(_header_constraints))
