"""Request of a call made in code: made of the call's options and the upstream's configured headers and parameters.

The request of a configured call is compiled at load instead (``request_template.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from ...config.schema.sections import Upstream
from ...core.call import FieldBlock
from ...core.errors import UmbelError
from ...core.http.header_field import ACCEPT_GZIP, Field, raw_value
from ...core.model import Json
from ...core.product import PRODUCT
from ..plan.scope import RouteNames, Scope
from ..text.expression import compile_source
from ..text.field_template import OnLeftOut, compile_field
from ..text.template import MAX_TARGET, BadValueError, Variable, compile_target, query_pairs, scalar_text
from .request_template import Param, RequestField, encode_form, expand_into

# A path without a query, a dot or anything to encode.
_SAFE_PATH = re.compile(r"/(?!/)[A-Za-z0-9/:@!$&'()*+,;=~_-]*+")

MISSING: Any = object()
"""Stands for an option that is not given, because None is a valid value."""

UNFIT = "it holds a control character, or is no Unicode"
_OUTER_WHITESPACE = "it begins or ends with whitespace, which no field keeps"
"""The reason why a header field of a call or an answer is left out."""

_DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?=/|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UpstreamDefaults:
    """The configured defaults of an upstream for calls made in code."""

    headers: tuple[RequestField, ...] = ()
    params: tuple[Param, ...] = ()
    timeout: float | None = None
    """Seconds for a call without a timeout of its own; None: no such limit."""
    max_body: int | None = None
    """Bytes of a response body; None: the default of the call's ``decode``."""
    forwarded: bool = True
    """Whether X-Forwarded-* fields are sent."""
    reads: tuple[str, ...] = ()
    """The client's header fields that the upstream's configured headers and parameters read."""
    user_agent: bytes = PRODUCT.encode("ascii")
    """The User-Agent of a call that sets none; empty: no such field is sent."""
    redirects: Literal["fail", "pass", "follow"] = "fail"
    """What a redirect means for a call that does not say so."""

    @classmethod
    def of(cls, name: str, upstream: Upstream) -> UpstreamDefaults:
        """Compile the defaults of an upstream.

        Raises:
            UmbelError: a header or a parameter reads a name that only a configured route has.
        """
        names = RouteNames(frozenset(), frozenset(), ())
        scope = Scope(names)
        try:
            headers = tuple(
                RequestField.of(header, compile_field(header, text, scope.resolve))
                for header, text in upstream.headers.items()
            )
            expressions = {
                param: compile_source(source, ("upstreams", name, "params", param))
                for param, source in upstream.params.items()
            }
            params = tuple(Param(param, found, scope.read(found)) for param, found in expressions.items())
        except ValueError as error:
            raise UmbelError(
                f'a route in code may call every upstream, but the upstream "{name}" cannot be called from code: in '
                f"its headers or params, {error}; move a name of a route to the calls of the configured routes"
            ) from error
        reads = tuple(header.replace("_", "-") for header in names.headers)
        return cls(
            headers,
            params,
            upstream.timeout,
            upstream.max_body,
            upstream.forwarded,
            reads,
            upstream.product,
            upstream.redirects,
        )


def build_target(path: str, values: Mapping[str, Json] | None, query: Sequence[str]) -> bytes:
    """Build the request target of a call.

    A literal path may hold user input. Dot segments are refused, and characters that no path or query may hold are
    percent-encoded, so user input can neither leave the directory nor add a fragment. A ``?`` in it begins a query; a
    caller that must prevent this gives ``values``.

    Args:
        path: a literal path, or a template if ``values`` are given.
        values: the values of the template; None: ``path`` is literal.
        query: encoded query parameters to add.

    Raises:
        BadValueError: a value cannot be encoded in its place, or the target is too long or has a dot segment.
        ValueError: the path or the template is invalid.
        TypeError: a value has a type without a form in JSON.
    """
    if values is not None:
        target = compile_target(path, lambda name: Variable(name, None, tuple(name.split(".")), f'the value "{name}"'))
        base, pairs = target.expand({}, values)
    else:
        if _SAFE_PATH.fullmatch(path) is not None and not query and len(path) <= MAX_TARGET:
            return path.encode("ascii")  # Nothing to encode.
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f'a path must begin with one "/", not {path!r}')
        before, mark, after = path.partition("?")
        if _DOT_SEGMENT.search(before):
            raise BadValueError("path", "has a dot segment", client_parameter="the path")
        base = quote(before, safe="/%:@!$&'()*+,;=~")
        pairs = [quote(after, safe="/?%:@!$&'()*+,;=~")] if mark else []
    pairs.extend(query)
    text = f"{base}?{'&'.join(pairs)}" if pairs else base
    if len(text) > MAX_TARGET:
        # A path in code usually holds values of the client. Parameters of the code are a mistake of the application.
        added = sum(map(len, query))
        client_parameter = "the path" if added <= len(text) // 2 else ""
        reason = f"and the query make a target of more than {MAX_TARGET} bytes; shorten them"
        raise BadValueError("path", reason, client_parameter=client_parameter)
    return text.encode("ascii")


def build_query(params: Mapping[str, Json], defaults: UpstreamDefaults, context: Mapping[str, Json]) -> list[str]:
    """Build the encoded query parameters: the call's own replace those of the upstream with the same name.

    Raises:
        BadValueError: a value is neither a scalar nor a list of scalars, or is too long.
        TypeError: a value has a type without a form in JSON.
        ExpressionError: the expression of a parameter of the upstream failed.
    """
    pairs: list[str] = []
    if not params and not defaults.params:
        return pairs
    for param in defaults.params:
        if param.name not in params:
            pairs.extend(
                query_pairs(param.name, param.expression.evaluate(context), client_parameter=param.client_parameter)
            )
    for name, value in params.items():
        # The source of the value is unknown, and a bad constant must not be reported as a mistake of the client.
        pairs.extend(query_pairs(name, value, client_parameter=""))
    return pairs


@lru_cache(maxsize=64)
def default_fields(accept: bytes, content_type: bytes, user_agent: bytes) -> FieldBlock:
    """The default header fields of a call. A field with an empty value is not sent."""
    named = ((b"accept", accept), (b"content-type", content_type), (b"user-agent", user_agent))
    return FieldBlock((*((name, name, value) for name, value in named if value), ACCEPT_GZIP))


def build_headers(
    own: Mapping[str, Json],
    defaults: UpstreamDefaults,
    context: Mapping[str, Json],
    usual: Sequence[Field],
    left_out: OnLeftOut,
) -> Sequence[Field]:
    """Build the header fields: ``usual`` ones, replaced by the upstream's, replaced by the call's ``own``.

    A str in ``own`` is sent with one byte per character if all characters are below U+0100, as in the client's fields;
    else as UTF-8. Other values are converted as in a template; None gives no field. A field with an invalid value is
    left out, and reported to ``left_out``; so is one that begins or ends with whitespace, since it may be a subject,
    and receivers remove the whitespace (RFC 9110 section 5.5).

    Raises:
        TypeError: a value has a type without a form in JSON.
    """
    if not own and not defaults.headers:
        return usual
    fields: dict[bytes, Field] = {field[1]: field for field in usual}
    expand_into(fields, defaults.headers, context, {}, left_out)
    for header, value in own.items():
        name = header.lower().encode("ascii")
        if not isinstance(value, str):
            if value is None:
                continue
            try:
                value = scalar_text(value, header, client_parameter="")
            except BadValueError as error:
                left_out(header.lower(), str(error))
                continue
        if value != value.strip():
            left_out(header.lower(), _OUTER_WHITESPACE)
        elif (encoded := raw_value(value)) is not None:
            fields[name] = (name, name, encoded)
        else:
            left_out(header.lower(), UNFIT)
    return [*fields.values()]


def build_content(json: Json, form: Mapping[str, Json] | None, content: bytes | None) -> tuple[bytes | None, bytes]:
    """Encode the body of a call. At most one of the three may be given (``json`` is ``MISSING`` if it is not).

    Returns:
        The body and its Content-Type. The body is None if none is given; the type is empty then, and for ``content``.

    Raises:
        ValueError: more than one is given.
        TypeError: a value has a type without a form in JSON.
        BadValueError: a form field is neither a scalar nor a list of scalars, or ``json`` cannot be encoded.
    """
    if sum((json is not MISSING, form is not None, content is not None)) > 1:
        raise ValueError("json, form and content exclude each other: a call has one body")
    if json is not MISSING:
        return _json(json), b"application/json"
    if form is not None:
        return encode_form(form, lambda name: ""), b"application/x-www-form-urlencoded"
    return content, b""


def _json(value: Json) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_plain_text)
    except UnicodeEncodeError as error:
        raise BadValueError("json", "is not valid Unicode", client_parameter="") from error
    except RecursionError as error:
        raise BadValueError("json", "is nested too deeply", client_parameter="") from error
    except (ValueError, OverflowError) as error:
        raise BadValueError("json", "holds a number that is too long", client_parameter="") from error


def _plain_text(value: object) -> str:
    """Convert an instance of a subclass of str, such as a text marked as safe HTML, which msgspec does not encode.

    Raises:
        TypeError: the value is no str.
    """
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"json holds a value of the type {type(value).__name__}, which has no form in JSON")
