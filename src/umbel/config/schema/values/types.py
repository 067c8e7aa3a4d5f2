"""Types of the values of single keys: annotated types whose validators say what to write instead of a wrong value.

A message shows neither a URL nor the value of a header field: both may be secret. Values with units are in
``units.py``, and constraints between several keys in ``constraints.py``.
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

from ....core.http.forward_all import STAR
from ....core.http.hop_by_hop import HOP_BY_HOP
from ....core.http.host import one_form
from ....core.http.probe_paths import PROBES
from ....core.http.syntax import CONTROL_TEXT, TARGET_CHARS, TOKEN_TEXT
from ....core.networks import UNIX_PEER

CONTEXT_WORDS = frozenset({"auth", "path", "query", "headers", "cookies", "body", "client", "item"})
"""The names of the context, which no call may have."""
RESERVED_WORDS = frozenset({"form", "failures"})
"""Names that a later version will add to the context. Neither a call nor an entry of ``with`` may have one of them."""

_RETRYABLE = ("connect", "dns", "reset", "status")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UPSTREAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MANAGED = frozenset({"content-length", "host", *(name.decode() for name in HOP_BY_HOP)})
_CONVERTER = re.compile(r"<[^<>]*>")
# The server refuses a request with any of these in its path, so no route may contain them.
_NEVER_SENT = re.compile(r"[?#\\\x00-\x20\x7f]|%2[fF]|%5[cC]|%00|%2[eE]")
_TARGET = re.compile(f"/[{TARGET_CHARS}]*")
# RFC 3986 section 2: the characters of a URL.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_SERVED_HOST = re.compile(rf"(?:{_HOST.pattern})(?::([0-9]{{1,5}}))?")
_REDIRECT_TARGET = re.compile(rf"(?:https?://{_SERVED_HOST.pattern}(?=/|\Z)|/(?!/))")
_LABEL = "[A-Za-z0-9_-]+"
_ROUTE_HOST = re.compile(rf"(?:(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_COOKIE_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_COOKIE_PATH = re.compile(r"/[!-:<-~]*")
_PORT = re.compile(r"[0-9]{1,5}")
_PORT_MAX = 65535
_ADMIN_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_UNIX_PATH_MAX = 107


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f'"{value}" is not {what}')
        return value

    return check


def _call_name(value: str) -> str:
    if value in CONTEXT_WORDS:
        raise ValueError(f'a call cannot have the name "{value}", which is a table of the context')
    return _not_reserved(value)


def _not_reserved(value: str) -> str:
    if value in RESERVED_WORDS:
        raise ValueError(f'the name "{value}" is reserved for a later version of Umbel; write another one')
    return value


def _field_name(value: str) -> str:
    if TOKEN_TEXT.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not a header name')
    if STAR in value:
        raise ValueError(f'"{value}" is a pattern, which is not allowed here; write each header name')
    if value.lower() in _MANAGED:
        instead = ", or write the key host of the upstream" if value.lower() == "host" else ""
        raise ValueError(f'"{value}" belongs to one connection and is written by Umbel; remove it{instead}')
    return value.lower()


def _cookie_name(value: str) -> str:
    if TOKEN_TEXT.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not a cookie name')
    if STAR in value:
        raise ValueError(f'"{value}" is a pattern, which is not allowed here; write each cookie name')
    return value


def _or_star(check: Callable[[str], str], what: str) -> Callable[[str], str]:
    """Make a check that accepts "*", and any other value that ``check`` accepts."""

    def checked(value: str) -> str:
        if value != STAR and STAR in value:
            raise ValueError(f'"{value}" is a pattern, which is not allowed here; write each {what}, or "*" for all')
        return value if value == STAR else check(value)

    return checked


def _distinct(value: Any) -> Any:
    if isinstance(value, dict):
        seen: dict[str, str] = {}
        for name in value:
            if (other := seen.setdefault(str(name).lower(), name)) != name:
                raise ValueError(f'"{name}" and "{other}" are the same header; remove one')
    return value


def _field_value(value: str) -> str:
    if CONTROL_TEXT.search(value):
        raise ValueError(
            "the value of a header must not hold a line break or another control character except tab; remove it"
        )
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
        raise ValueError("this is not a URL: its host or its port is malformed") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold credentials; send them in a header such as authorization")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this is not an http://, https:// or unix: URL")
    if prefix and _is_address(parts.hostname):
        raise ValueError("dns+ needs a host name; write a URL with an IP address without dns+")
    if _URL.fullmatch(value) is None:
        raise ValueError("this is not a URL: it may hold only letters, digits and -._~:/[]!$&'()*+,;=%")
    if _HOST.fullmatch(parts.netloc.removesuffix(f":{port}")) is None:
        raise ValueError("this is not a URL: its host or its port is malformed")
    if port == 0:
        raise ValueError("the port of a URL must be at least 1")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("this must be a base URL: a host with an optional port and path, without query and fragment")
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
        raise ValueError(f"the path of a Unix socket may have at most {_UNIX_PATH_MAX} bytes")
    return value


def _passed_status(value: int) -> int:
    if value == 304:
        raise ValueError("304 answers a condition; forward if-none-match or if-modified-since instead")
    return value


def _respond_status(value: int) -> int:
    if value in (206, 304):
        raise ValueError(f"{value} answers a condition or a range of a request, and this response is always the same")
    return value


def _redirect_target(value: str) -> str:
    match = _REDIRECT_TARGET.match(value)
    if match is None:
        raise ValueError(
            'needs a path that begins with one "/", or a URL such as "https://shop.example/new/{id}", whose origin'
            " holds no {name}"
        )
    if not 1 <= int(match[1] or 1) <= _PORT_MAX:
        raise ValueError(f"the port of a URL must be from 1 to {_PORT_MAX}")
    return value


def _concurrency(value: object) -> object:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError('needs a whole number of at least 1, or "auto"')


def _retryable(value: object) -> object:
    if value in _RETRYABLE or (type(value) is int and 400 <= value <= 599):
        return value
    raise ValueError(f"needs one of the words {', '.join(_RETRYABLE)}, or a number from 400 to 599")


def _target(value: str) -> str:
    if _TARGET.fullmatch(value) is None:
        raise ValueError(
            'needs a "/" followed by visible ASCII without "#", such as "/healthz"; percent-encode other characters'
        )
    return value


def _route_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f'a path must begin with "/", not "{value}"')
    literal = _CONVERTER.sub("x", value)
    if odd := _NEVER_SENT.search(literal):
        raise ValueError(f'a request with "{odd[0]}" in its path is always refused; remove it')
    if "//" in literal or any(segment in (".", "..") for segment in literal.split("/")):
        raise ValueError("write the path without //, /./ and /../; a request with one of them is redirected or refused")
    if value in PROBES:
        raise ValueError(f'"{value}" is a probe, which the gateway answers; write another path')
    return value


def _route_host(value: str) -> str:
    match = _ROUTE_HOST.fullmatch(value)
    if match is None or not 0 < int(match[1] or 1) <= _PORT_MAX:
        raise ValueError(
            f'"{value}" is not a host; write a name such as "shop.example", "*.shop.example" or "shop.example:8000", in'
            " ASCII (xn--… for other letters)"
        )
    return one_form(value)


def _network(value: str) -> str:
    if value == UNIX_PEER:
        return value
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f'"{value}" is not an address, a network such as "10.0.0.0/8", or "unix"') from error
    return value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty, which would allow all; list what is allowed, or remove the key")
    return value


def _probe_path(path: str) -> str:
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#"):
        raise ValueError("must be a path such as /healthz, without a query")
    return path


def _served_host(value: str) -> str:
    match = _SERVED_HOST.fullmatch(value)
    if match is None or not 0 < int(match[1] or 1) <= _PORT_MAX:
        raise ValueError(
            f'"{value}" is not a host; write a name or an address, such as "www.example.com" or "[::1]:80"'
        )
    return value


def _tcp_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if _HOST.fullmatch(host) is None or _PORT.fullmatch(port) is None or int(port) > _PORT_MAX:
        raise ValueError(f'"{value}" is not an address; write a host and a port, such as "127.0.0.1:9600"')
    return value


def _admin_token(value: str) -> str:
    # The value is a secret, so the message does not show it.
    if _ADMIN_TOKEN.fullmatch(value) is None:
        raise ValueError("needs at least 16 characters, of letters, digits and ._~+/=-")
    return value


def _cookie_domain(value: str) -> str:
    name = value.removeprefix(".").lower()
    if _COOKIE_DOMAIN.fullmatch(name) is None:
        raise ValueError(f'"{value}" is not a domain; write a name such as "shop.example", without port')
    return name


def _cookie_path(value: str) -> str:
    if _COOKIE_PATH.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not the path of a cookie; write a "/" followed by visible ASCII without ";"')
    return value


def _file_name(value: str) -> str:
    if value in ("", ".", "..") or "/" in value or CONTROL_TEXT.search(value):
        raise ValueError(f'"{value}" is not a file name; write a name without a directory')
    return value


def _json(value: Any) -> Any:
    """Check that a value is a JSON value. Recursion is safe: the nesting of files is bounded (``DEPTH_MAX``)."""
    if isinstance(value, dict):
        for inner in value.values():
            _json(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _json(inner)
    elif isinstance(value, datetime.date | datetime.time):
        raise ValueError("JSON has no dates and times; write the value in quotes")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has neither inf nor nan")
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError("this is not a JSON value")
    return value


def _expression(value: object) -> object:
    """Refuse a bare number or boolean with a message that shows the literal to write. Pass any other value on."""
    return _not_bare(value, "")


def _source(value: object) -> object:
    """Do as ``_expression``; the message also shows the table of a constant."""
    return _not_bare(value, " or {{ value = {} }}")


def _not_bare(value: object, also: str) -> object:
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return value
    said = json.dumps(value)
    what = said if isinstance(value, bool) else "a whole number" if isinstance(value, int) else "a number with a point"
    raise ValueError(f'needs a text, not {what}; write "`{said}`" (a JMESPath literal){also.format(said)}')


def _separator(value: str) -> str:
    if len(value) != 1:
        raise ValueError('needs one character, such as ","')
    return value


def _names(pattern: re.Pattern[str], what: str) -> tuple[AfterValidator, WithJsonSchema]:
    # Editors search for the pattern of a JSON Schema anywhere in the text, so it needs ^ and $.
    return (
        AfterValidator(_matching(pattern, f"a name; names are {what}")),
        WithJsonSchema({"type": "string", "pattern": f"^{pattern.pattern}$"}),
    )


Name = Annotated[str, *_names(_NAME, "letters, digits and _, not first a digit")]
CallName = Annotated[Name, AfterValidator(_call_name)]
BoundName = Annotated[Name, AfterValidator(_not_reserved)]
UpstreamName = Annotated[str, *_names(_UPSTREAM_NAME, "letters, digits, _ and -, first a letter or _")]
HeaderName = Annotated[str, AfterValidator(_field_name)]
HeaderText = Annotated[str, AfterValidator(_field_value)]
Headers = Annotated[dict[HeaderName, HeaderText], BeforeValidator(_distinct)]
UserAgent = Annotated[str, AfterValidator(_user_agent)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
CookieName = Annotated[str, AfterValidator(_cookie_name)]
CookieDomain = Annotated[str, AfterValidator(_cookie_domain)]
"""A domain of cookies, in lower case and without a dot at its beginning, which browsers ignore (RFC 6265)."""
CookiePath = Annotated[str, AfterValidator(_cookie_path)]
ForwardedHeader = Annotated[str, AfterValidator(_or_star(_field_name, "header"))]
ExposedHeader = ForwardedHeader
"""The name of a field that CORS allows, or ``*``."""
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
RouteHost = Annotated[str, AfterValidator(_route_host)]
RoutePath = Annotated[str, AfterValidator(_route_path)]
Network = Annotated[str, AfterValidator(_network)]
NOT_EMPTY = AfterValidator(_not_empty)
"""The validator of a list whose absence means all. An empty one, as of a variable without a value, is refused."""
ServedHost = Annotated[str, AfterValidator(_served_host)]
ProbePath = Annotated[str, AfterValidator(_probe_path)]
TcpAddress = Annotated[str, AfterValidator(_tcp_address)]
AdminToken = Annotated[str, AfterValidator(_admin_token)]
FileName = Annotated[str, AfterValidator(_file_name)]
ExpressionText = Annotated[str, BeforeValidator(_expression)]
"""A JMESPath expression."""
AS_SOURCE = BeforeValidator(_source)
"""The validator of a value that is an expression or the table of a constant."""
JsonValue = Annotated[Any, AfterValidator(_json)]
Separator = Annotated[
    str, AfterValidator(_separator), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1})
]
JsonScalars = Annotated[
    str | int | float | bool | Annotated[tuple[str | int | float | bool, ...], Field(strict=False)] | None,
    AfterValidator(_json),
]
"""A scalar of JSON, or a list of scalars that are not null."""
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Status = Annotated[int, Field(ge=200, le=599)]
RespondStatus = Annotated[int, Field(ge=200, le=599), AfterValidator(_respond_status)]
RedirectTarget = Annotated[str, AfterValidator(_redirect_target)]
PassedStatus = Annotated[int, Field(ge=300, le=599), AfterValidator(_passed_status)]
