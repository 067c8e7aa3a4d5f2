"""Request template of a configured call: its compiled templates and expressions, which make a request.

A template is made once per call of a route, at load. ``prepare`` runs once per inbound request, or once per item of an
``each``. Only the parts of the client's request that the configuration names are sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_plus, unquote_plus

import msgspec

from ...config.schema.access.credential_names import NO_CREDENTIALS, CredentialNames
from ...core.call import EVERY, FieldBlock, FieldBlocks, PreparedRequest, block_of
from ...core.http.forward_all import CONDITIONS, STAR
from ...core.http.header_field import ACCEPT_GZIP, Field, raw_value
from ...core.model import Inputs, Json
from ...net.bounded_cache import BoundedCache
from ..text.expression import Expression
from ..text.fault import describe_parameter, describe_parameters
from ..text.field_template import FieldTemplate, OnLeftOut, ignore_left_out
from ..text.template import LISTS, MAX_TARGET, BadValueError, TargetTemplate, query_pairs, scalar_text
from .conditions import withheld
from .forward import forwarded_cookies, forwarded_fields, forwarded_query, query_sizes

MAX_FORM_FIELDS = 10_000
"""The most fields of a form."""
BEGINNINGS_MAX = 64
"""The most entries of a ``RequestTemplate.beginnings``: one per replica, and few upstreams have more replicas."""


FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"


class RequestField(NamedTuple):
    """A configured header field of a call: its name in lower case and the template of its value."""

    name: bytes
    text: FieldTemplate
    fixed: Field | None
    """The complete field, if its value has no variables; else None."""

    @classmethod
    def of(cls, name: str, text: FieldTemplate) -> RequestField:
        """Make the header field ``name``; ``text`` is the compiled template of its value."""
        lower = name.lower().encode("ascii")
        value = None if text.variables else text.expand({}, {})
        return cls(lower, text, None if value is None else (lower, lower, value))


class Param(NamedTuple):
    """A named value made by an expression: a query parameter, a form field, a member of JSON or a name of ``with``."""

    name: str
    expression: Expression
    client_parameter: str
    """Words for the parameters of the client's request that the value is made of; empty: it has another source."""


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    """A JSON or form body, made by one expression (``whole``) or by a table of expressions (``fields``).

    Exactly one of the two is used: ``fields`` if ``whole`` is None.
    """

    form: bool
    """Whether the body is a form (``application/x-www-form-urlencoded``) instead of JSON."""
    whole: Param | None
    """The expression that makes the whole body; for a form its value must be an object."""
    fields: tuple[Param, ...] = ()
    """The members of the JSON object, or the fields of the form."""

    def content(self, context: Mapping[str, Json]) -> bytes:
        """Encode the body.

        Raises:
            ExpressionError: an expression failed.
            BadValueError: a form cannot hold the value.
        """
        if self.whole is not None:
            value = self.whole.expression.evaluate(context)
            whole = self.whole.client_parameter
            client_parameter = {"": f"a member of {whole}" if whole else ""}
        else:
            value = {field.name: field.expression.evaluate(context) for field in self.fields}
            client_parameter = {field.name: field.client_parameter for field in self.fields}
        if not self.form:
            return msgspec.json.encode(value)
        if not isinstance(value, dict):
            raise BadValueError(
                "form", "is not an object", client_parameter="" if self.whole is None else self.whole.client_parameter
            )
        return encode_form(value, lambda name: client_parameter.get(name, client_parameter.get("", "")))


def encode_form(fields: Mapping[str, Json], client_parameter: Callable[[str], str]) -> bytes:
    """Encode a form body (WHATWG URL, section 5.2). A null gives no field, a list gives one field per item.

    Args:
        client_parameter: returns words for the client's parameters that the value of a field is made of.

    Raises:
        BadValueError: a value is an object, a list of more than scalars, or no Unicode; or there are too many fields.
    """
    pairs: list[str] = []
    if sum(len(entry) if isinstance(entry, LISTS) else 1 for entry in fields.values()) > MAX_FORM_FIELDS:
        raise BadValueError(
            "form", f"has more than {MAX_FORM_FIELDS} fields", client_parameter=client_parameter(next(iter(fields)))
        )
    for name, entry in fields.items():
        if isinstance(entry, LISTS):
            try:
                pairs += [_form_pair(name, item, client_parameter(name)) for item in entry if item is not None]
            except BadValueError as error:
                raise error.of_item() from error
        elif entry is not None:
            pairs.append(_form_pair(name, entry, client_parameter(name)))
    return "&".join(pairs).encode("ascii")


def _form_pair(name: str, value: Json, client_parameter: str) -> str:
    """The encoded ``name=value`` of a scalar.

    Raises:
        BadValueError: the value is no scalar, or no Unicode.
    """
    try:
        return f"{quote_plus(name)}={quote_plus(scalar_text(value, name, client_parameter=client_parameter))}"
    except UnicodeEncodeError as error:
        raise BadValueError(name, "is not valid Unicode", client_parameter=client_parameter) from error


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """The compiled request of a call. ``prepare`` makes the request with the values of one inbound request."""

    method: str
    accept: bytes
    user_agent: bytes
    """The User-Agent of a call without another one; empty: no such field is sent."""
    target: TargetTemplate
    upstream_headers: tuple[RequestField, ...]
    """The header fields of the upstream. The call's own fields and forwarded ones replace them."""
    headers: tuple[RequestField, ...]
    """The call's own header fields."""
    bound: tuple[Param, ...]
    """The names of ``with`` and the expressions that make their values."""
    params: tuple[Param, ...]
    body: BodyTemplate | None
    forward_headers: tuple[str, ...]
    forward_query: frozenset[str]
    forward_cookies: tuple[str, ...]
    forward_body: bool
    forwarded: bool
    """Whether X-Forwarded-* fields are sent."""
    deadline_header: str | None = None
    """The name of the field with the remaining time, which the client of the upstream writes."""
    credentials: CredentialNames = NO_CREDENTIALS
    """The fields and cookies that ``"*"`` leaves out."""
    fixed_target: bytes | None = field(init=False)
    """The target, if it is the same for every inbound request; else None."""
    fixed_headers: FieldBlock | None = field(init=False)
    """The header fields, if they are the same for every inbound request; else None."""
    beginnings: BoundedCache[object, bytes] | None = field(init=False, compare=False)
    """The cache for ``PreparedRequest.beginnings``; None: target, header fields or body differ between requests."""
    _never_by_star: frozenset[str] = field(init=False)
    """The names of the client's fields that ``"*"`` does not send, with hyphens for underscores."""
    _by_name: tuple[str, ...] = field(init=False)
    """The names of ``forward_headers`` that the call does not set itself."""
    _set_cookies: frozenset[str] = field(init=False)
    """The names of the cookies that the configuration sets, if they have values."""
    contested: bool = field(init=False)
    """Whether the configuration names a gateway field. The gateway's value is sent then."""

    def __post_init__(self) -> None:
        """Compute at load the fields that do not depend on a request."""
        deadline = () if self.deadline_header is None else (self.deadline_header.replace("_", "-"),)
        # A field that the configuration sets is not the client's either where its template gives no value.
        configured = {each.name.decode("ascii") for each in (*self.upstream_headers, *self.headers)}
        hyphened = {name.replace("_", "-") for name in configured}
        object.__setattr__(self, "_never_by_star", self.credentials.fields.union(deadline, hyphened))
        own = {each.name.decode("ascii") for each in self.headers}
        object.__setattr__(self, "_by_name", tuple(name for name in self.forward_headers if name not in own))
        cookies = (each.text.cookie_names for each in (*self.upstream_headers, *self.headers) if each.name == b"cookie")
        object.__setattr__(self, "_set_cookies", frozenset().union(*cookies))
        target: bytes | None = None
        if not (self.target.variables or self.params or self.forward_query):
            with suppress(BadValueError):  # A target that is too long: each call fails with this error.
                target = self._target({}, {}, Inputs())
        of_client = self.forward_headers or self.forward_cookies or self.forward_body
        templates = (*self.upstream_headers, *self.headers)
        headers: FieldBlock | None = None
        names = {template.name for template in templates} | {name.encode("ascii") for name in self.forward_headers}
        contested = not names.isdisjoint(GATEWAY_FIELDS_ALWAYS | GATEWAY_FIELDS_FORWARDED)
        if not contested and not of_client and all(template.fixed is not None for template in templates):
            headers = FieldBlock(self._headers({}, {}, Inputs(), ignore_left_out))
        object.__setattr__(self, "fixed_target", target)
        object.__setattr__(self, "fixed_headers", headers)
        fixed = target is not None and headers is not None and self.body is None and not self.bound
        object.__setattr__(self, "beginnings", BoundedCache(BEGINNINGS_MAX) if fixed else None)
        object.__setattr__(self, "contested", contested)

    def prepare(
        self,
        context: Mapping[str, Json],
        inputs: Inputs,
        gateway: FieldBlocks | None = None,
        left_out: OnLeftOut = ignore_left_out,
    ) -> PreparedRequest:
        """Make the request with the values of one inbound request.

        Args:
            context: the evaluation context; with ``each`` it has the name ``item``.
            gateway: the result of ``gateway_fields``; None: it is computed.
            left_out: receives each header field that is left out because of its value.

        Raises:
            BadValueError: a value cannot be encoded in its place.
            ExpressionError: an expression failed.
        """
        target, headers = self.fixed_target, self.fixed_headers
        if gateway is None:
            gateway = gateway_fields(inputs, forwarded=self.forwarded)
        if self.beginnings is not None and target is not None and headers is not None:
            return PreparedRequest(self.method, target, headers, None, gateway, None, self.beginnings)
        bound = {param.name: param.expression.evaluate(context) for param in self.bound}
        target = self._target(context, bound, inputs) if target is None else target
        content = self._content(context, inputs)
        if headers is None:
            own = self._headers(context, bound, inputs, left_out)
            own = drop_gateway_fields(own, gateway) if self.contested else own
            return PreparedRequest(self.method, target, own, content, gateway)
        return PreparedRequest(self.method, target, headers, content, gateway)

    def reads_headers(self, text: FieldTemplate) -> bool:
        """Whether a template of this call reads a header field of the client, directly or by a bound name."""
        bound = {param.name for param in self.bound if any(root == "headers" for root, _ in param.expression.names)}
        return any(
            variable.root == "headers" or (variable.root is None and variable.fields[0] in bound)
            for variable in text.variables
        )

    def client_parameter_of(self, name: str, context: Mapping[str, Json], item: str) -> str:
        """Words for the client's parameter that a bad value came from; empty: it came from another source.

        It is needed for expressions that read more than the client's request, such as ``body.id || user.id``: they are
        evaluated again to find where the value came from.

        Args:
            name: the name that the bad value has in the template, the parameters or the body.
            context: the evaluation context of the failed call.
            item: words for the client's list that ``item`` comes from; empty: the list is not the client's.
        """
        root, _, rest = name.partition(".")
        if root == "item":
            return describe_parameter("item", tuple(rest.split(".")) if rest else (), item)
        for param in (*self.bound, *self.params, *(self.body.fields if self.body is not None else ())):
            if param.name in (name, root):
                return describe_parameters(param.expression.origins(context, param.expression.evaluate(context)), item)
        if self.body is not None and self.body.whole is not None:
            # The form is one expression, and ``name`` is a member of its value.
            expression = self.body.whole.expression
            value = expression.evaluate(context)
            member = value.get(name) if isinstance(value, dict) else value
            return describe_parameters(expression.origins(context, member), item)
        return ""

    @property
    def query_names(self) -> tuple[str, ...]:
        """The names of the query parameters that the configuration sets, in order."""
        pieces = self.target.query
        own = (unquote_plus(each.partition("=")[0]) if isinstance(each, str) else each.name for each in pieces)
        return (*own, *(param.name for param in self.params))

    def _target(self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs) -> bytes:
        path, query = self.target.expand(context, bound)
        for param in self.params:
            query.extend(
                query_pairs(param.name, param.expression.evaluate(context), client_parameter=param.client_parameter)
            )
        if self.forward_query:
            query.extend(forwarded_query(inputs.raw_query, self.forward_query))
        target = f"{path}?{'&'.join(query)}" if query else path
        if len(target) > MAX_TARGET:
            client_parameter = self._longest(context, bound, inputs)
            raise BadValueError(
                "path", f"makes a target of more than {MAX_TARGET} bytes", client_parameter=client_parameter
            )
        return target.encode("ascii")

    def _longest(self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs) -> str:
        """Words for the client's parameter with the longest value in the target; empty: it has another source."""
        sizes = [("", 0)]
        for part in self.target.variables:
            pairs = query_pairs(part.name, part.value(context, bound), client_parameter=part.client_parameter)
            sizes.append((part.client_parameter, sum(map(len, pairs))))
        for param in self.params:
            pairs = query_pairs(param.name, param.expression.evaluate(context), client_parameter=param.client_parameter)
            sizes.append((param.client_parameter, sum(map(len, pairs))))
        for name, size in query_sizes(inputs.raw_query, self.forward_query):
            sizes.append((describe_parameter("query", (name,)) if name else "the query", size))
        return max(sizes, key=lambda each: each[1])[0]

    def _headers(
        self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs, left_out: OnLeftOut
    ) -> list[Field]:
        """Make the header fields. Later ones replace earlier ones of the same name, in this order:

        defaults; fields forwarded by ``"*"``; those of the body; the upstream's; fields forwarded by name; the call's
        own; the forwarded cookies. So a client cannot replace a field that the configuration sets, except a field of
        the upstream that the call forwards by name. This holds also where a template gives no value, and so no field.
        """
        fields: dict[bytes, Field] = {
            b"accept": (b"accept", b"accept", self.accept),
            b"accept-encoding": ACCEPT_GZIP,
        }
        if self.user_agent:
            _put(fields, b"user-agent", self.user_agent)
        if STAR in self.forward_headers:
            for name, given in forwarded_fields(inputs.headers, self._never_by_star):
                _put(fields, name.encode("latin-1"), raw_value(given))
        if self.body is not None:
            _put(fields, b"content-type", FORM if self.body.form else JSON)
        elif self.forward_body:
            _describe(fields, inputs)
        expand_into(fields, self.upstream_headers, context, bound, left_out)
        for name in self._by_name:
            if (named := inputs.headers.get(name)) is not None:
                if name in CONDITIONS and withheld(name, self.forward_headers, inputs.headers):
                    continue
                _put(fields, name.encode("ascii"), raw_value(named))
        expand_into(fields, self.headers, context, bound, left_out)
        if self.forward_cookies:
            own = fields.get(b"cookie") if "cookie" not in self.forward_headers else None
            configured = own[2].decode("latin-1") if own is not None else ""
            if cookies := forwarded_cookies(
                inputs.headers,
                inputs.cookies,
                self.forward_cookies,
                configured,
                self.credentials.cookies,
                self._set_cookies,
            ):
                _put(fields, b"cookie", raw_value(cookies))
        return [*fields.values()]

    def _content(self, context: Mapping[str, Json], inputs: Inputs) -> bytes | None:
        if self.body is not None:
            return self.body.content(context)
        return inputs.raw_body if self.forward_body else None


def _describe(fields: dict[bytes, Field], inputs: Inputs) -> None:
    """Set Content-Type and Content-Encoding of a forwarded body, whose bytes are unchanged."""
    if inputs.content_type:
        _put(fields, b"content-type", raw_value(inputs.content_type))
    coding = inputs.headers.get("content-encoding")
    if coding is not None and not is_identity(coding):
        _put(fields, b"content-encoding", raw_value(coding))


def is_identity(content_encoding: str) -> bool:
    """Whether a Content-Encoding names no coding other than identity (RFC 9110 section 8.4.1)."""
    return all(coding.strip(" \t").lower() in ("", "identity") for coding in content_encoding.split(","))


def _put(fields: dict[bytes, Field], name: bytes, value: bytes | None) -> None:
    """Set a header field, unless its value is None."""
    if value is not None:
        fields[name] = (name, name, value)


def expand_into(
    fields: dict[bytes, Field],
    templates: Sequence[RequestField],
    context: Mapping[str, Json],
    bound: Mapping[str, Json],
    left_out: OnLeftOut,
) -> None:
    """Expand the templates into ``fields``. A header field without a value is left out."""
    for name, template, fixed in templates:
        if fixed is not None:
            fields[name] = fixed
        else:
            _put(fields, name, template.expand(context, bound, left_out))


GATEWAY_FIELDS_ALWAYS = frozenset({b"x-request-id", b"via"})
"""The gateway fields of every call: the request id, and the path that the request has taken."""
GATEWAY_FIELDS_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
"""The gateway fields of calls to an upstream with ``forwarded = true``: the client's address, scheme and host."""


def drop_gateway_fields(fields: Sequence[Field], gateway: Sequence[Sequence[Field]]) -> list[Field]:
    """The fields without those whose names ``gateway`` has: only the gateway may set them."""
    names = {lower for block in gateway for _, lower, _ in block}
    return [field for field in fields if field[1] not in names]


def gateway_fields(inputs: Inputs, *, forwarded: bool) -> FieldBlocks:
    """The gateway fields of the calls of one inbound request.

    They are X-Request-ID and Via, and with ``forwarded`` also X-Forwarded-For, -Proto and -Host. The request id is a
    separate block, because the other blocks are the same for many requests.
    """
    others = (inputs.forwarded, inputs.forwarded_for) if forwarded else (inputs.forwarded,)
    request_id = inputs.request_id
    if not request_id:
        return FieldBlocks(others)
    if _PLAIN_ID.fullmatch(request_id) is None:
        return FieldBlocks((block_of((("x-request-id", request_id),)), *others))
    value = request_id.encode("ascii")
    block = FieldBlock(((b"x-request-id", b"x-request-id", value),))
    # No upstream replaces this field: the plan compiler refuses it as a ``deadline_header``.
    block.lines, block.lines_for = b"x-request-id: %b\r\n" % value, EVERY
    return FieldBlocks((block, *others))


_PLAIN_ID = re.compile(r"[!-~]+")
