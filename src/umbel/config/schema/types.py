"""Value types of single keys: each an annotated type whose validator names what to write instead.

A validator's message shows neither a URL nor the value of a header: both may be secret. Durations, sizes and ratios are
in ``units.py``; constraints between several keys are in ``constraints.py``.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ...core.http.forward_all import STAR
from ...core.http.hop_by_hop import HOP_BY_HOP
from ...core.http.syntax import CONTROL_TEXT, TARGET_CHARS, TOKEN_TEXT

CONTEXT_WORDS = frozenset({"path", "query", "headers", "body", "item"})
"""The names of the context that no call can have."""

UNIX_PEER = "unix"
"""The word in ``trusted_proxies`` for every peer on a Unix socket, which has no address."""

_RETRYABLE = ("connect", "dns", "reset", "status")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UPSTREAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MANAGED = frozenset({"content-length", "host", *(name.decode() for name in HOP_BY_HOP)})
_CONVERTER = re.compile(r"<[^<>]*>")
# The gateway rejects these characters in a path (as they are, or decoded), whatever the route.
_NEVER_SENT = re.compile(r"[?#\\\x00-\x20\x7f]|%2[fF]|%5[cC]|%00|%2[eE]")
_TARGET = re.compile(f"/[{TARGET_CHARS}]*")
# RFC 3986 section 2: the characters of a URL.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_SERVED_HOST = re.compile(rf"(?:{_HOST.pattern})(?::[0-9]{{1,5}})?")
_UNIX_PATH_MAX = 107


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f'"{value}" is not {what}')
        return value

    return check


def _call_name(value: str) -> str:
    if value in CONTEXT_WORDS:
        raise ValueError(f'a call cannot be named "{value}": the context uses that word')
    return value


def _field_name(value: str) -> str:
    if TOKEN_TEXT.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not a header name')
    if STAR in value:
        raise ValueError(f'"{value}" names no header; there are no patterns here, so write each name')
    if value.lower() in _MANAGED:
        raise ValueError(f'"{value}" belongs to the connection and is written by Umbel itself')
    return value.lower()


def _cookie_name(value: str) -> str:
    if TOKEN_TEXT.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not the name of a cookie')
    if STAR in value:
        raise ValueError(f'"{value}" names no cookie; there are no patterns here, so write each name')
    return value


def _or_star(check: Callable[[str], str], what: str) -> Callable[[str], str]:
    """Make a check of what a call forwards: a name, or a star alone."""

    def checked(value: str) -> str:
        if value != STAR and STAR in value:
            raise ValueError(f'"{value}" names no {what}; "*" stands alone, for all of them')
        return value if value == STAR else check(value)

    return checked


def _distinct(value: Any) -> Any:
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            if (other := seen.setdefault(str(name).lower(), name)) != name:
                raise ValueError(f'"{name}" and "{other}" are one header; it can stand here once')
    return value


def _field_value(value: str) -> str:
    if CONTROL_TEXT.search(value):
        raise ValueError("a header holds no line break and no other control character")
    return value


def _user_agent(value: str) -> str:
    if not (value.isascii() and value.isprintable()) or value != value.strip() or not value:
        raise ValueError('needs printable ASCII, such as "my-gateway/1.0 (+https://example.com)", or "off"')
    return value


def _base_url(value: str) -> str:
    if value.startswith("unix:"):
        return _unix_url(value)
    prefix = "dns+" if value.startswith("dns+") else ""
    value = value.removeprefix(prefix)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("this is not a URL; its host or its port is malformed") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL here holds no credentials; send them as a header, such as authorization")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this is not an http://, https:// or unix: URL")
    if prefix and _is_address(parts.hostname):
        raise ValueError("dns+ goes before a URL with a name; an address is written without it")
    if _URL.fullmatch(value) is None:
        raise ValueError("this is not a URL; only letters, digits and -._~:/[]!$&'()*+,;=% may stand in one")
    if _HOST.fullmatch(parts.netloc.removesuffix(f":{port}")) is None:
        raise ValueError("this is not a URL; its host or its port is malformed")
    if parts.query or parts.fragment or "?" in value or "#" in value or port == 0:
        raise ValueError("this must be a base URL: a host, maybe a port and a path, and no more")
    return f"{prefix}{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unix_url(value: str) -> str:
    path = value.removeprefix("unix:")
    if not path.startswith("/") or CONTROL_TEXT.search(path):
        raise ValueError('a unix: URL needs an absolute path, such as "unix:/run/users.sock"')
    if len(path.encode()) > _UNIX_PATH_MAX:
        raise ValueError(f"the path of a Unix socket has {_UNIX_PATH_MAX} bytes at most")
    return value


def _passed_status(value: int) -> int:
    if value == 304:
        raise ValueError("304 answers a conditional request; forward if-none-match or if-modified-since instead")
    return value


def _concurrency(value: object) -> object:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError('needs a whole number of at least 1, or "auto"')


def _retryable(value: object) -> object:
    if value in _RETRYABLE or (type(value) is int and 400 <= value <= 599):
        return value
    raise ValueError(f"needs {', '.join(_RETRYABLE)}, or a status from 400 to 599")


def _target(value: str) -> str:
    if _TARGET.fullmatch(value) is None:
        raise ValueError('this is not a path to ask for, such as "/healthz"')
    return value


def _route_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f'a path begins with "/", not as "{value}" does')
    literal = _CONVERTER.sub("x", value)
    if odd := _NEVER_SENT.search(literal):
        raise ValueError(f'no request ever has "{odd[0]}" in its path, so this route would never answer')
    if "//" in literal or any(segment in (".", "..") for segment in literal.split("/")):
        raise ValueError("no request ever has //, /./ or /../ in its path, so this route would never answer")
    return value


def _network(value: str) -> str:
    if value == UNIX_PEER:
        return value
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f'"{value}" is not an address, a network such as "10.0.0.0/8", or "unix"') from error
    return value


def _probe_path(path: str) -> str:
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#"):
        raise ValueError("must be a path such as /healthz, without a query")
    return path


def _served_host(value: str) -> str:
    if _SERVED_HOST.fullmatch(value) is None:
        raise ValueError(
            f'"{value}" is not a host; write a name or an address, such as "www.example.com" or "[::1]:80"'
        )
    return value


def _file_name(value: str) -> str:
    if value in ("", ".", "..") or "/" in value or CONTROL_TEXT.search(value):
        raise ValueError(f'"{value}" is not the name of a file inside dir')
    return value


def _json(value: Any) -> Any:
    """Check that a value is one of JSON. Files are nested less deep than Python recurses (``DEPTH_MAX``)."""
    if isinstance(value, dict):
        for inner in value.values():
            _json(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _json(inner)
    elif isinstance(value, datetime.date | datetime.time):
        raise ValueError("JSON has no dates and times; write it in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has neither inf nor nan")
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError("this is no value of JSON")
    return value


def _expression(value: object) -> object:
    """Reject a bare number or truth value, with the literal to write instead; the schema checks all else."""
    return _not_bare(value, "")


def _source(value: object) -> object:
    """Reject a bare number or truth value as ``_expression`` does, and name the table of a constant too."""
    return _not_bare(value, " or {{ value = {} }}")


def _not_bare(value: object, also: str) -> object:
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return value
    said = json.dumps(value)
    what = said if isinstance(value, bool) else "a whole number" if isinstance(value, int) else "a number with a point"
    raise ValueError(f'needs a text, not {what}; write "`{said}`" (a JMESPath literal){also.format(said)}')


def _names(pattern: re.Pattern[str], what: str) -> tuple[AfterValidator, WithJsonSchema]:
    # The JSON Schema's pattern is for editors; they do not know Python's fullmatch.
    return (
        AfterValidator(_matching(pattern, f"a name; names are {what}")),
        WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$"}),
    )


Name = Annotated[str, *_names(_NAME, "letters, digits and _, not first a digit")]
CallName = Annotated[Name, AfterValidator(_call_name)]
UpstreamName = Annotated[str, *_names(_UPSTREAM_NAME, "letters, digits, _ and -, first a letter or _")]
HeaderName = Annotated[str, AfterValidator(_field_name)]
HeaderText = Annotated[str, AfterValidator(_field_value)]
Headers = Annotated[dict[HeaderName, HeaderText], BeforeValidator(_distinct)]
UserAgent = Annotated[str, AfterValidator(_user_agent)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
CookieName = Annotated[str, AfterValidator(_cookie_name)]
ForwardedHeader = Annotated[str, AfterValidator(_or_star(_field_name, "header"))]
ForwardedParam = Annotated[str, AfterValidator(_or_star(str, "query parameter"))]
ForwardedCookie = Annotated[str, AfterValidator(_or_star(_cookie_name, "cookie"))]
RetryOn = Annotated[
    str | int,
    BeforeValidator(_retryable),
    WithJsonSchema({"anyOf": [{"enum": list(_RETRYABLE)}, {"type": "integer", "minimum": 400, "maximum": 599}]}),
]
"""A failure kind or status that is retried (``policy/retry.py``)."""
Concurrency = Annotated[
    int | Literal["auto"],
    BeforeValidator(_concurrency),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
Target = Annotated[str, AfterValidator(_target)]
RoutePath = Annotated[str, AfterValidator(_route_path)]
Network = Annotated[str, AfterValidator(_network)]
ServedHost = Annotated[str, AfterValidator(_served_host)]
ProbePath = Annotated[str, AfterValidator(_probe_path)]
FileName = Annotated[str, AfterValidator(_file_name)]
ExpressionText = Annotated[str, BeforeValidator(_expression)]
"""A JMESPath expression."""
AS_SOURCE = BeforeValidator(_source)
"""The validator of a value that is an expression or the table of a constant."""
JsonValue = Annotated[Any, AfterValidator(_json)]
JsonScalar = Annotated[str | int | float | bool | None, AfterValidator(_json)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Status = Annotated[int, Field(ge=200, le=599)]
PassedStatus = Annotated[int, Field(ge=300, le=599), AfterValidator(_passed_status)]
