"""Target templates: paths with the RFC 6570 forms ``{name}``, ``{?a,b}`` and ``{&a,b}``, compiled once at load.

A value always stays one encoded path segment or one query value, whatever it holds. A value that cannot be encoded in
this way makes the call fail. Field templates (``field_template.py``) use the same parser.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from ...core.model import Json

MAX_VALUE = 8 * 1024
"""The most characters of the text of one value: common servers refuse a longer one in a target or a header."""
MAX_TARGET = 16 * 1024
"""The most bytes of a target: common servers refuse longer targets."""


_SCALARS = (str, int, float, type(None))
LISTS = (list, tuple, set, frozenset)
"""The types that count as lists: that of JSON, and those that code may give instead."""


class BadValueError(Exception):
    """A value cannot be encoded in its place. The message names the variable and the reason, without the value.

    ``client_parameter`` holds words for the parameter of the client's request that the value came from; empty: the
    value is not the client's.
    """

    def __init__(self, name: str, reason: str, *, client_parameter: str) -> None:
        super().__init__(f"{{{name}}} {reason}")
        self.name = name
        self.client_parameter = client_parameter
        self.reason = reason

    def of_item(self) -> BadValueError:
        """This error, about an item of the value's list."""
        return BadValueError(self.name, f"has an item that {self.reason}", client_parameter=self.client_parameter)


class Variable(NamedTuple):
    """A resolved variable: the path of its value in the context. Root None: the path begins with a bound name."""

    name: str
    root: str | None
    fields: tuple[str, ...]
    client_parameter: str
    """Words for the parameter of the client's request that the variable names; empty: it names another value."""
    keeps_slashes: bool = False
    """Whether the value is several segments of a path (``{+name}``)."""
    of_identity: bool = False
    """Whether the value is from ``auth``, or made by an expression that reads it."""

    def value(self, context: Mapping[str, Json], bound: Mapping[str, Json]) -> Json:
        """The value; None if any member of the path is missing."""
        value: Json = bound if self.root is None else context.get(self.root)
        for field in self.fields:
            value = value.get(field) if isinstance(value, dict) else None
        return value


Resolver = Callable[[str], Variable]
"""Resolves a name in a template. Raises ValueError if the name is unknown or ambiguous."""

Bound = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class TargetTemplate:
    """A compiled request target: a path of literals and variables, then query parameters."""

    path: tuple[str | Variable, ...]
    query: tuple[str | Variable, ...]
    """A str is a literal part, such as ``a=1``; a variable makes a part ``name=value``."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, in order."""
        return tuple(part for part in self.path + self.query if isinstance(part, Variable))

    def expand(self, context: Mapping[str, Json], bound: Bound) -> tuple[str, list[str]]:
        """Expand the template to the encoded path and the encoded parts of the query, without the ``&`` between them.

        Raises:
            BadValueError: a value cannot be encoded as a segment or a query value.
        """
        path = ""
        for part in self.path:
            path += part if isinstance(part, str) else encoded_segment(part, part.value(context, bound))
        return path, self.expand_query(context, bound) if self.query else []

    def expand_query(self, context: Mapping[str, Json], bound: Bound) -> list[str]:
        """The encoded parts of the query; as ``expand``."""
        pairs: list[str] = []
        for part in self.query:
            if isinstance(part, str):
                pairs.append(part)
            else:
                pairs.extend(
                    query_pairs(
                        part.name, part.value(context, bound), client_parameter=part.client_parameter, join=True
                    )
                )
        return pairs


def scalar_text(value: Json, name: str, *, client_parameter: str) -> str:
    """The text of a scalar: a str is unchanged, any other scalar is written as JSON (``true``, ``1.5``).

    A value from code whose JSON is a text (a date, a UUID, a Decimal, an enum) gives that text without quotes.

    Raises:
        BadValueError: the value is a list, an object, a number that is not finite, or longer than ``MAX_VALUE``.
        TypeError: the value has a type without a form in JSON.
    """
    if not isinstance(value, _SCALARS):
        value = _of_code(value, name)
        if isinstance(value, (list, dict)):
            raise BadValueError(
                name, f"is {'a list' if isinstance(value, list) else 'an object'}", client_parameter=client_parameter
            )
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValueError(name, "is not a finite number", client_parameter=client_parameter)
    try:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except ValueError:  # An integer with more digits than Python writes: it is longer than MAX_VALUE.
        text = " " * (MAX_VALUE + 1)
    if len(text) > MAX_VALUE:
        raise BadValueError(name, f"is longer than {MAX_VALUE} characters", client_parameter=client_parameter)
    return text


def _of_code(value: object, name: str) -> Json:
    """The JSON value of an object that is no JSON scalar. A list or a mapping gives an empty one.

    Raises:
        TypeError: the object has a type without a form in JSON.
    """
    if isinstance(value, LISTS):
        return []
    if isinstance(value, dict):
        return {}
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f'"{name}" is bytes; give a str')
    try:
        built: Json = msgspec.to_builtins(value)
    except TypeError as error:
        raise TypeError(f'"{name}" is of the type {type(value).__name__}, which has no form in JSON') from error
    return built


def percent_encoded(value: Json, name: str, *, client_parameter: str) -> str:
    """The text of a scalar with all but unreserved characters percent-encoded (RFC 3986 section 2.3).

    Raises:
        BadValueError: as in ``scalar_text``, or the text is no Unicode.
        TypeError: as in ``scalar_text``.
    """
    try:
        return quote(scalar_text(value, name, client_parameter=client_parameter), safe="")
    except UnicodeEncodeError as error:
        raise BadValueError(name, "is not valid Unicode", client_parameter=client_parameter) from error


def query_pairs(name: str, value: Json, *, client_parameter: str, join: bool = False) -> list[str]:
    """The encoded ``name=value`` parts of a value: none for null, one for a scalar, one per item of a list but nulls.

    Args:
        join: the items of a list that are not null share one part, with commas between them; no such item: no part.

    Raises:
        BadValueError: as in ``percent_encoded``, for the value or an item; or a list is too long for any target.
        TypeError: as in ``scalar_text``.
    """
    if value is None:
        return []
    key = quote(name, safe="")
    if not isinstance(value, LISTS):
        return [f"{key}={percent_encoded(value, name, client_parameter=client_parameter)}"]
    texts: list[str] = []
    room = MAX_TARGET
    for item in value:
        if item is not None:
            try:
                text = percent_encoded(item, name, client_parameter=client_parameter)
            except BadValueError as error:
                raise error.of_item() from error
            room -= len(text) + 1
            if room < 0:
                raise BadValueError(
                    name, f"makes a target of more than {MAX_TARGET} bytes", client_parameter=client_parameter
                )
            texts.append(text)
    if join:
        return [f"{key}={','.join(texts)}"] if texts else []
    return [f"{key}={text}" for text in texts]


_NEVER_A_SEGMENT = frozenset({"", ".", ".."})
# Unreserved characters, which nothing encodes (RFC 3986 section 2.3); not a dot first, so that it is no dot segment.
_PLAIN_SEGMENT = re.compile(rf"[A-Za-z0-9_~-][A-Za-z0-9._~-]{{0,{MAX_VALUE - 1}}}")


def encoded_segment(variable: Variable, value: Json) -> str:
    """The value of a variable of a path, encoded as one segment, or as several ones where it ``keeps_slashes``.

    Raises:
        BadValueError: the value is null, cannot be encoded, or has an empty segment or a dot segment.
    """
    if type(value) is str and _PLAIN_SEGMENT.fullmatch(value) is not None:
        return value
    if value is None:
        raise BadValueError(variable.name, "has no value", client_parameter=variable.client_parameter)
    text = percent_encoded(value, variable.name, client_parameter=variable.client_parameter)
    segments = text.split("%2F") if variable.keeps_slashes else [text]
    check_segments(variable, segments)
    return "/".join(segments)


def check_segments(variable: Variable, segments: list[str]) -> None:
    """Check the segments that the value of a variable makes.

    Raises:
        BadValueError: one is empty, unless it is the last of several, or a dot segment.
    """
    # A slash at the end is kept. An empty segment anywhere else could make a host of the segment after it.
    checked = segments[:-1] if len(segments) > 1 and not segments[-1] else segments
    if not _NEVER_A_SEGMENT.isdisjoint(checked):
        raise BadValueError(variable.name, "is empty or a dot segment", client_parameter=variable.client_parameter)


_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_QUERY_START = re.compile(r"\?|\{[?&]")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# RFC 3986: unreserved, percent-encoded, sub-delims, ":" and "@", then "/" and "?".
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")


def compile_target(text: str, resolve: Resolver, keeps_slashes: Collection[str] = ()) -> TargetTemplate:
    """Compile the path template of a call or a redirect.

    Args:
        text: the template.
        resolve: resolves its names.
        keeps_slashes: the names that may be written ``{+name}``, so that the value is several segments.

    Raises:
        ValueError: the template is invalid, or ``resolve`` refused a name.
    """
    if not text.startswith("/") or text.startswith("//"):
        raise ValueError('a path must begin with one "/"')
    start = _QUERY_START.search(text)
    split = start.start() if start else len(text)
    path = tuple(_path_parts(text[:split], resolve, keeps_slashes))
    return TargetTemplate(path, tuple(_query_parts(text[split:], resolve)))


def _path_parts(text: str, resolve: Resolver, keeps_slashes: Collection[str]) -> Iterator[str | Variable]:
    literals = ""
    for piece in parse_template(text, keeps_slashes):
        if isinstance(piece, str):
            _check_literal(piece)
            literals += piece
            yield piece
        else:
            literals += "{}"
            yield resolve(piece.names[0])._replace(keeps_slashes=piece.operator == "+")
    if any(segment in (".", "..") for segment in unquote(literals).split("/")):
        raise ValueError('a path must not have a segment "." or ".."')


def _query_parts(text: str, resolve: Resolver) -> Iterator[str | Variable]:
    for place, piece in enumerate(parse_template(text)):
        if isinstance(piece, str):
            _check_literal(piece)
            if place > 0 and not piece.startswith("&"):
                raise ValueError(f'write "&{piece.lstrip("?")}" for "{piece}", because the query has begun already')
            literal = piece.removeprefix("?") if place == 0 else piece
            yield from filter(None, literal.split("&"))
        elif piece.operator == "":
            raise ValueError(f"{{{piece.names[0]}}} is in the query; write an entry of params for it")
        elif piece.operator == "&" and place == 0:
            raise ValueError("{&…} continues a query; begin the query with {?…}")
        elif piece.operator == "?" and place > 0:
            raise ValueError("{?…} begins a query, but the query has begun already; continue it with {&…}")
        else:
            yield from map(resolve, piece.names)


def _check_literal(text: str) -> None:
    if _LITERAL.fullmatch(text) is None:
        odd = next((character for character in text if _LITERAL.fullmatch(character) is None), "%")
        raise ValueError(f'"{odd}" is not allowed in a path; write it percent-encoded')


class Placeholder(NamedTuple):
    """A ``{…}`` of a template."""

    operator: str
    """``?``, ``&``, ``+`` or empty."""
    names: tuple[str, ...]


def parse_template(text: str, keeps_slashes: Collection[str] = ()) -> Iterator[str | Placeholder]:
    """Yield the literals and the placeholders of a template, in order. ``keeps_slashes``: as in ``compile_target``.

    Raises:
        ValueError: the template is invalid. (The library uritemplate accepts ``{a b}``, ``{}`` and ``{id``.)
    """
    at = 0
    for match in _EXPRESSION.finditer(text):
        yield from _literal(text[at : match.start()])
        at = match.end()
        inner = match[1]
        operator = inner[0] if inner[:1] in ("?", "&") or (inner[:1] == "+" and inner[1:] in keeps_slashes) else ""
        names = tuple(inner[len(operator) :].split(","))
        for name in names:
            if name[:1] in tuple("+#/;.|!@=,"):
                if name[:1] == "+" and keeps_slashes:
                    known = " or ".join(f"{{+{each}}}" for each in keeps_slashes)
                    raise ValueError(f"{match[0]}: only a parameter <path:…> keeps its slashes; write {known}")
                raise ValueError(
                    f"{match[0]}: the operator {name[:1]} is not allowed; {{name}}, {{?a,b}} and {{&a,b}} are"
                )
            if name.endswith("*") or ":" in name:
                raise ValueError(f"{match[0]}: explode (*) and prefixes (:n) are not allowed; write the name alone")
            if _DOTTED.fullmatch(name) is None:
                raise ValueError(f'{match[0]}: "{name}" is not a name; a name has letters, digits, "_" and "."')
        if operator == "" and len(names) > 1:
            raise ValueError(f"{match[0]}: a placeholder without ? or & takes one name; write one for each name")
        yield Placeholder(operator, names)
    yield from _literal(text[at:])


def _literal(text: str) -> Iterator[str]:
    if "{" in text or "}" in text:
        raise ValueError(f'"{text}" has an unpaired brace; a placeholder is written {{name}}')
    if text:
        yield text
