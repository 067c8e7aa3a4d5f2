"""The recipe of a call's request: templates and expressions compiled, ready to become bytes.

A recipe is made once per call of a route, at load; ``prepare`` runs once per request (per item, with ``each``).
Nothing of the client's goes in but what the recipe names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_plus

import msgspec

from ...core.call import EVERY, FieldBlock, FieldBlocks, Prepared, block_of
from ...core.http.forward_all import STAR
from ...core.http.header_field import ACCEPT_GZIP, Field, raw_value
from ...core.model import Inputs, Json
from ..text.expression import Expression
from ..text.fault import describe_parameter, describe_parameters
from ..text.field_template import FieldTemplate, OnLeftOut, ignore_left_out
from ..text.template import LISTS, MAX_TARGET, BadValueError, TargetTemplate, query_pairs, scalar_text
from .conditions import CONDITIONS, withheld
from .forward import forwarded_cookies, forwarded_fields, forwarded_query, query_sizes

MAX_FORM_FIELDS = 10_000
"""The most fields that a form is sent with."""


FORM = b"application/x-www-form-urlencoded"
JSON = b"application/json"


class RequestField(NamedTuple):
    """A header field: its name in lower case, and its value."""

    name: bytes
    text: FieldTemplate
    fixed: Field | None
    """The whole field, where its value has no variables."""

    @classmethod
    def of(cls, name: str, text: FieldTemplate) -> RequestField:
        """Compile a field as far as it goes."""
        lower = name.lower().encode("ascii")
        value = None if text.variables else text.expand({}, {})
        return cls(lower, text, None if value is None else (lower, lower, value))


class Param(NamedTuple):
    """A query parameter or form field made by an expression."""

    name: str
    expression: Expression
    client: str
    """The client's parameters that it is made of, in words; empty where it is made of anything else."""


@dataclass(frozen=True, slots=True)
class BodyTemplate:
    """A JSON or form body: of one expression (``fields`` None), or of a table of them."""

    form: bool
    whole: Param | None
    fields: tuple[Param, ...] = ()

    def content(self, context: Mapping[str, Json]) -> bytes:
        """The encoded body.

        Raises:
            ExpressionError: an expression failed.
            BadValueError: a form cannot hold the value.
        """
        if self.whole is not None:
            value = self.whole.expression.evaluate(context)
            whole = self.whole.client
            client = {"": f"a member of {whole}" if whole else ""}
        else:
            value = {field.name: field.expression.evaluate(context) for field in self.fields}
            client = {field.name: field.client for field in self.fields}
        if not self.form:
            return msgspec.json.encode(value)
        if not isinstance(value, dict):
            raise BadValueError("form", "is not an object", client="" if self.whole is None else self.whole.client)
        return encode_form(value, lambda name: client.get(name, client.get("", "")))


def encode_form(fields: Mapping[str, Json], client: Callable[[str], str]) -> bytes:
    """A form body (WHATWG URL, section 5.2): null is left out, a list is a field each.

    ``client`` gives for a field the client's parameters that its value is made of, in words.

    Raises:
        BadValueError: a value is an object, a list that holds more than scalars, or no Unicode; or there are too many
            fields.
    """
    pairs: list[str] = []
    if sum(len(entry) if isinstance(entry, LISTS) else 1 for entry in fields.values()) > MAX_FORM_FIELDS:
        raise BadValueError("form", f"has more than {MAX_FORM_FIELDS} fields", client=client(next(iter(fields))))
    for name, entry in fields.items():
        try:
            pairs.extend(
                f"{quote_plus(name)}={quote_plus(scalar_text(one, name, client=client(name)))}"
                for one in (entry if isinstance(entry, LISTS) else [entry])
                if one is not None
            )
        except UnicodeEncodeError as error:
            raise BadValueError(name, "is not valid Unicode", client=client(name)) from error
    return "&".join(pairs).encode("ascii")


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """Everything that a call's request is made of."""

    method: str
    accept: bytes
    user_agent: bytes
    """What is said where neither the configuration nor the client says another; empty for none."""
    target: TargetTemplate
    upstream_headers: tuple[RequestField, ...]
    """The upstream's; whatever the call forwards or says itself is nearer."""
    headers: tuple[RequestField, ...]
    bound: tuple[Param, ...]
    """The names of ``with``."""
    params: tuple[Param, ...]
    body: BodyTemplate | None
    forward_headers: tuple[str, ...]
    forward_query: frozenset[str]
    forward_cookies: tuple[str, ...]
    forward_body: bool
    forwarded: bool
    """Whether X-Forwarded-* go along."""
    deadline_header: str | None = None
    """The upstream's field that tells the time that is left: Umbel writes it."""
    fixed_target: bytes | None = field(init=False)
    """The target, where nothing of a request is in it."""
    fixed_headers: FieldBlock | None = field(init=False)
    """The plan's fields, where nothing of a request is in them."""
    beginnings: dict[object, bytes] | None = field(init=False, compare=False)
    """``Prepared.beginnings`` of its requests."""
    contested: bool = field(init=False)
    """Whether the plan names a field that the gateway may write itself; which one is sent depends on the request."""

    def __post_init__(self) -> None:
        """Make at load what does not depend on a request."""
        target: bytes | None = None
        if not (self.target.variables or self.params or self.forward_query):
            with suppress(BadValueError):  # Too long: each call says so.
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
        object.__setattr__(self, "beginnings", {} if fixed else None)
        object.__setattr__(self, "contested", contested)

    def prepare(
        self,
        context: Mapping[str, Json],
        inputs: Inputs,
        gateway: FieldBlocks | None = None,
        left_out: OnLeftOut = ignore_left_out,
    ) -> Prepared:
        """The request for these values. ``gateway``: what ``gateway_fields`` gives, where that is known already.

        Raises:
            BadValueError: a value cannot stand where it should.
            ExpressionError: an expression failed.
        """
        target, headers = self.fixed_target, self.fixed_headers
        if gateway is None:
            gateway = gateway_fields(inputs, forwarded=self.forwarded)
        if self.beginnings is not None and target is not None and headers is not None:
            return Prepared(self.method, target, headers, None, gateway, None, self.beginnings)
        bound = {param.name: param.expression.evaluate(context) for param in self.bound}
        target = self._target(context, bound, inputs) if target is None else target
        content = self._content(context, inputs)
        if headers is None:
            own = self._headers(context, bound, inputs, left_out)
            own = drop_gateway_fields(own, gateway) if self.contested else own
            return Prepared(self.method, target, own, content, gateway)
        return Prepared(self.method, target, headers, content, gateway)

    def reads_headers(self, text: FieldTemplate) -> bool:
        """Whether a template of this call reads a header of the client's, itself or through a name of ``with``."""
        bound = {param.name for param in self.bound if any(root == "headers" for root, _ in param.expression.names)}
        return any(
            variable.root == "headers" or (variable.root is None and variable.fields[0] in bound)
            for variable in text.variables
        )

    def client_parameter_of(self, name: str, context: Mapping[str, Json], item: str) -> str:
        """The client's parameter, in words, that the bad value of ``name`` came from; empty if it is not the client's.

        For expressions that read more than the client's request, such as ``body.id || user.id``. ``item`` describes
        the client's list that the item is from; it is empty if it is not the client's.
        """
        root, _, rest = name.partition(".")
        if root == "item":
            return describe_parameter("item", tuple(rest.split(".")) if rest else (), item)
        for param in (*self.bound, *self.params, *(self.body.fields if self.body is not None else ())):
            if param.name in (name, root):
                return describe_parameters(param.expression.origins(context, param.expression.evaluate(context)), item)
        if self.body is not None and self.body.whole is not None:
            # A form that is one expression: the name is that of its field.
            expression = self.body.whole.expression
            value = expression.evaluate(context)
            member = value.get(name) if isinstance(value, dict) else value
            return describe_parameters(expression.origins(context, member), item)
        return ""

    def _target(self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs) -> bytes:
        path, query = self.target.expand(context, bound)
        for param in self.params:
            query.extend(query_pairs(param.name, param.expression.evaluate(context), client=param.client))
        if self.forward_query:
            query.extend(forwarded_query(inputs.raw_query, self.forward_query))
        target = f"{path}?{'&'.join(query)}" if query else path
        if len(target) > MAX_TARGET:
            client = self._longest(context, bound, inputs)
            raise BadValueError("path", f"makes a target of more than {MAX_TARGET} bytes", client=client)
        return target.encode("ascii")

    def _longest(self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs) -> str:
        """The client's parameter, in words, that is the target's longest value; empty if that is not the client's."""
        sizes = [("", 0)]
        for part in self.target.variables:
            pairs = query_pairs(part.name, part.value(context, bound), client=part.client)
            sizes.append((part.client, sum(map(len, pairs))))
        for param in self.params:
            pairs = query_pairs(param.name, param.expression.evaluate(context), client=param.client)
            sizes.append((param.client, sum(map(len, pairs))))
        for name, size in query_sizes(inputs.raw_query, self.forward_query):
            sizes.append((describe_parameter("query", (name,)) if name else "the query", size))
        return max(sizes, key=lambda each: each[1])[0]

    def _headers(
        self, context: Mapping[str, Json], bound: Mapping[str, Json], inputs: Inputs, left_out: OnLeftOut
    ) -> list[Field]:
        """The plan's fields. The nearer wins: the usual ones, the upstream's, the client's, the call's own.

        What goes along because of ``"*"`` gives way to all that the configuration names: a client must not be able to
        replace a field that the upstream is always sent.
        """
        fields: dict[bytes, Field] = {
            b"accept": (b"accept", b"accept", self.accept),
            b"accept-encoding": ACCEPT_GZIP,
        }
        if self.user_agent:
            _put(fields, b"user-agent", self.user_agent)
        if STAR in self.forward_headers:
            for name, given in forwarded_fields(inputs.headers, self.deadline_header):
                _put(fields, name.encode("latin-1"), raw_value(given))
        if self.body is not None:
            _put(fields, b"content-type", FORM if self.body.form else JSON)
        elif self.forward_body:
            _describe(fields, inputs)
        expand_into(fields, self.upstream_headers, context, bound, left_out)
        for name in self.forward_headers:
            if (named := inputs.headers.get(name)) is not None:
                if name in CONDITIONS and withheld(name, self.forward_headers, inputs.headers):
                    continue
                _put(fields, name.encode("ascii"), raw_value(named))
        expand_into(fields, self.headers, context, bound, left_out)
        if self.forward_cookies:
            own = fields.get(b"cookie") if "cookie" not in self.forward_headers else None
            said = own[2].decode("latin-1") if own is not None else ""
            if cookies := forwarded_cookies(inputs.headers, inputs.cookies, self.forward_cookies, said):
                _put(fields, b"cookie", raw_value(cookies))
        return [*fields.values()]

    def _content(self, context: Mapping[str, Json], inputs: Inputs) -> bytes | None:
        if self.body is not None:
            return self.body.content(context)
        return inputs.raw_body if self.forward_body else None


def _describe(fields: dict[bytes, Field], inputs: Inputs) -> None:
    """Put the fields that say how the client's body is to be read: its bytes go on as they came."""
    if inputs.content_type:
        _put(fields, b"content-type", raw_value(inputs.content_type))
    coding = inputs.headers.get("content-encoding")
    if coding is not None and not is_identity(coding):
        _put(fields, b"content-encoding", raw_value(coding))


def is_identity(content_encoding: str) -> bool:
    """Whether a Content-Encoding names no coding but the one that changes nothing (RFC 9110 section 8.4.1)."""
    return all(coding.strip(" \t").lower() in ("", "identity") for coding in content_encoding.split(","))


def _put(fields: dict[bytes, Field], name: bytes, value: bytes | None) -> None:
    """Put a field among ``fields``, unless (None) no field can hold its value."""
    if value is not None:
        fields[name] = (name, name, value)


def expand_into(
    fields: dict[bytes, Field],
    templates: Sequence[RequestField],
    context: Mapping[str, Json],
    bound: Mapping[str, Json],
    left_out: OnLeftOut,
) -> None:
    """Put the fields that have a value among ``fields``."""
    for name, template, fixed in templates:
        if fixed is not None:
            fields[name] = fixed
        else:
            _put(fields, name, template.expand(context, bound, left_out))


GATEWAY_FIELDS_ALWAYS = frozenset({b"x-request-id", b"via"})
"""The fields that the gateway writes into every call (``Inputs.request_id`` and ``Inputs.forwarded``)."""
GATEWAY_FIELDS_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
"""The fields that it writes where the upstream is told of the client (``Inputs.forwarded_for``)."""


def drop_gateway_fields(fields: Sequence[Field], gateway: Sequence[Sequence[Field]]) -> list[Field]:
    """The plan's fields less those that the gateway writes itself.

    What the gateway says of itself cannot be said by anybody else in its place.
    """
    names = {lower for block in gateway for _, lower, _ in block}
    return [field for field in fields if field[1] not in names]


def gateway_fields(inputs: Inputs, *, forwarded: bool) -> FieldBlocks:
    """The fields that the gateway writes: ``Inputs.request_id`` and ``Inputs.forwarded``, and ``Inputs.forwarded_for``
    where these are sent. The id has a block of its own: the others are the same for many requests."""
    others = (inputs.forwarded, inputs.forwarded_for) if forwarded else (inputs.forwarded,)
    request_id = inputs.request_id
    if not request_id:
        return FieldBlocks(others)
    if _PLAIN_ID.fullmatch(request_id) is None:
        return FieldBlocks((block_of((("x-request-id", request_id),)), *others))
    value = request_id.encode("ascii")
    block = FieldBlock(((b"x-request-id", b"x-request-id", value),))
    # No upstream replaces it: a plan whose upstream tells its time that way is refused (``plan.py``).
    block.lines, block.lines_for = b"x-request-id: %b\r\n" % value, EVERY
    return FieldBlocks((block, *others))


_PLAIN_ID = re.compile(r"[!-~]+")
