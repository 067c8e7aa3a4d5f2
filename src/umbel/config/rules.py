"""The schema's small types and the rules that hold between keys of one table.

Used by ``schema.py`` alone. Each rule raises ValueError with a sentence that says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from .schema import Call, Route, Tls

CONTEXT_WORDS = frozenset({"path", "query", "headers", "body", "item"})
"""The words of the context that no call can bear."""

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_UPSTREAM_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
# RFC 9110 section 5.6.2: a field name is a token.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MANAGED = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(f'"{value}" is not {what}')
        return value

    return check


def _field_name(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ValueError(f'"{value}" is not a header name')
    if value.lower() in _MANAGED:
        raise ValueError(f'"{value}" belongs to the connection and is written by Umbel itself')
    return value.lower()


def _base_url(value: str) -> str:
    if value.startswith("unix:"):
        if not value.removeprefix("unix:").startswith("/"):
            raise ValueError(f'"{value}" needs an absolute path, such as "unix:/run/users.sock"')
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError("this is not a URL") from error
    if parts.username is not None or parts.password is not None:
        # The value is not shown: it holds a secret.
        raise ValueError("a URL here holds no credentials; send them as a header, such as authorization")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'"{value}" is not an http://, https:// or unix: URL')
    if parts.query or parts.fragment or port == 0:
        raise ValueError(f'"{value}" must be a base URL: a host, maybe a port and a path, and no more')
    return value.rstrip("/")


Name = Annotated[str, AfterValidator(_matching(_NAME, "a name; names are letters, digits and _, not first a digit"))]
UpstreamName = Annotated[
    str,
    AfterValidator(_matching(_UPSTREAM_NAME, "a name; names are letters, digits, _ and -, first a letter or _")),
]
HeaderName = Annotated[str, AfterValidator(_field_name)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Status = Annotated[int, Field(ge=200, le=599)]
FailureStatus = Annotated[int, Field(ge=400, le=499)]


def check_tls(tls: Tls) -> Tls:
    """A client certificate and its key come together."""
    if (tls.cert is None) != (tls.key is None):
        raise ValueError("cert and key belong together: give both or neither")
    return tls


def check_call(call: Call) -> Call:
    """The rules between the keys of one call."""
    given = call.model_fields_set
    if sum((call.json_ is not None, call.form is not None, call.forward_body)) > 1:
        raise ValueError("json, form and forward_body exclude each other: a call has one body")
    if call.each is None:
        for key, name in (
            ("as_", "as"),
            ("limit", "limit"),
            ("max_items", "max_items"),
            ("item_default", "item_default"),
        ):
            if key in given:
                raise ValueError(f"{name} says something about the items of an each, and this call has no each")
    if call.default_null and "default" in given:
        raise ValueError("default and default_null exclude each other")
    if call.has_default and not call.optional and call.when is None:
        raise ValueError("a default serves only a call with optional = true or with when")
    if "item_default" in given and not call.optional:
        raise ValueError("item_default serves only a call with optional = true: a required each fails with its item")
    if call.method in ("GET", "HEAD") and (call.json_ is not None or call.form is not None or call.forward_body):
        raise ValueError(f"a {call.method} call has no body; give it another method")
    if both := set(call.ok) & set(call.null_on):
        raise ValueError(f"{min(both)} stands in ok and in null_on; it can mean one thing")
    return call


def check_route(route: Route) -> Route:
    """The rules between the keys of one route."""
    if not route.path.startswith("/"):
        raise ValueError(f'path must begin with "/", not "{route.path}"')
    if (route.combine == "quorum") != (route.quorum is not None):
        raise ValueError('combine = "quorum" and quorum = k belong together')
    if word := min(CONTEXT_WORDS & set(route.calls), default=None):
        raise ValueError(f'a call cannot be named "{word}": the context uses that word')
    return route
