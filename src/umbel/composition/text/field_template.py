"""Field templates: values of header fields with ``{name}`` in them, compiled once at load.

Theory
------
A value must not leave its place in the template, whatever it holds: it must end no line, add no cookie and, outside of
Cookie, end no parameter and no quoted string. So it is encoded as the field and the text around the variable require:

- In a quoted string (``name="{x}"``), quotes and backslashes are escaped (RFC 9110 section 5.6.4).
- In a parameter without quotes (``name={x}``), a value that could end the parameter becomes a quoted string.
- In a parameter of Content-Disposition, and in the title of a Link, a value that is not ASCII is sent twice: as an
  ASCII fallback, and as ``name*=UTF-8''…`` (RFC 8187, RFC 6266 section 4.3, RFC 8288 section 3.4.1).
- In ``name*=UTF-8''{x}``, it is percent-encoded (RFC 8187 section 3.2.1).
- In a field that is a URI (Location), after the time of a Refresh, and between the angle brackets of a Link, it is
  percent-encoded except for the characters that a URI may hold (RFC 3986 section 2). After a first "/" it cannot begin
  with another one, which would make a host of it.
- Anywhere else it is sent unchanged. Whitespace at the begin and the end of the field is no part of it (RFC 9110
  section 5.5), and is removed.

A value is sent in UTF-8. A header field or cookie of the client whose bytes are no UTF-8 is text in ISO-8859-1 here
(``text_of``); it is sent in ISO-8859-1, that is, with the bytes that the client has sent. So a field that mixes such a
value with others has each in its own encoding. This does not hold where a value is percent-encoded: that is always the
encoding of its UTF-8. ``set_client_texts`` marks these values in the context. Between the pieces of a field and its
bytes, their characters above 0x7F are lone surrogates (``surrogateescape``), which no other value can have.

A field is left out, and reported to an ``OnLeftOut``, if no encoding can hold one of its values: a value with a control
character (so no value ends a line), a list or an object, a number that is not finite, or more than ``MAX_VALUE``
characters; also a quote in an entity tag, and a semicolon in Cookie unless the variable is the whole field, because
these fields have no escape. (In Cookie nothing else is escaped or quoted.) A field of more
than ``MAX_FIELD`` bytes is left out too, and so is a URI that the template begins and in whose path a value makes a dot
segment. So is a field with a value of ``auth`` that begins or ends with whitespace and that nothing quotes: receivers
remove such whitespace from fields, members of lists and cookies, and two subjects would become one.

``_Compiler`` reads a template once, character by character, and determines the encoding of each variable (``How``) from
the text before it. ``FieldTemplate.expand`` then applies the encodings to the values of a request.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from ...core.events import LogMessage, Recorder
from ...core.http.header_field import fits_field, text_of
from ...core.http.syntax import TOKEN_CHARS, TOKEN_TEXT
from ...core.model import Json, RequestFacts
from .template import BadValueError, Resolver, Variable, parse_template, scalar_text

MAX_FIELD = 16 * 1024
"""The most bytes of the value of a field: common servers refuse longer values."""

_URI_FIELDS = frozenset({"location", "content-location", "referer"})
_REDIRECTING = frozenset({"location", "refresh"})
"""The fields that send a client to another URL."""
_OF_CLIENT = frozenset({"path", "query", "headers", "cookies", "body"})
"""The names of the client's values in expressions."""
_AT_ROOT = re.compile(r"""(?:url=)?["']?/""", re.IGNORECASE)
"""The text without spaces before a value that is the first segment of a path; in Refresh the URL has a name."""
_WITHOUT_HOST = re.compile(r"""(?:url=)?["']?(?:https?:)?(?://[^/?#]*)?""", re.IGNORECASE)
"""The text without spaces before a value that may be a host or a part of it."""
_ENDS_PATH = re.compile(r"[?#]")
_SEPARATORS = re.compile(r"""[/\\'"]""")
_DOTS = frozenset({".", ".."})
_TAG_FIELDS = frozenset({"if-match", "if-none-match", "if-range"})
# Fields whose parameters are always tokens or quoted strings.
_STRICT = frozenset({"accept", "cache-control", "content-disposition", "content-type", "forwarded", "link", "prefer"})
_EXTENDED = {"content-disposition": re.compile(r"[^*]+"), "link": re.compile("title")}
"""By field, the parameters that have an extended form (``name*``)."""

# A value that cannot end its parameter: the next parameter begins after a semicolon or a comma.
# No whitespace is outside, where a receiver may remove it.
_KEEPS_INSIDE = re.compile(r'(?!\s)[^;,"\\]*(?<!\s)')
# The end of a literal in which a parameter begins: the name of the parameter, and the begin of its value.
_PARAMETER = re.compile(rf'(?:^|[;,\s])([{TOKEN_CHARS}]+)=([^\s;,"]*)$')
_ENDS_PARAMETER = frozenset(' \t;,"')
_ESCAPED = re.compile(r'(["\\])')
# The reserved characters of RFC 3986, and "%", because a value may be encoded already.
_URI_SAFE = "!#$%&'()*+,/:;=?@[]~"
# The characters of attr-char (RFC 8187 section 3.2.1) that quote() would encode.
_ATTR_SAFE = "!#$&+^`|"

_AS_LATIN_1 = "as latin-1"
"""The key of the context for the marked values: root and name of each that is sent in ISO-8859-1. No expression can
name it by accident."""

Inner = tuple[str | Variable, ...]
How = Literal["plain", "quoted", "bare", "uri"]
"""The place of a variable: in plain text, a quoted string, a parameter without quotes, or a URI."""


class _Part(NamedTuple):
    """A part of a template with variables, and the encoding of their values."""

    how: How
    name: str
    """The name of the parameter in lower case; empty: the part is no parameter."""
    written: str
    """The name of the parameter as the template has it."""
    inner: Inner


def set_client_texts(context: dict[str, Json], root: str, raw: Mapping[str, str | None]) -> None:
    """Set ``context[root]`` to the texts of the client's values, and mark those that fields send in ISO-8859-1.

    Args:
        raw: the values by name as byte text (``core.http.header_field``); None: the request has none.
    """
    texts: dict[str, Json] = {name: None if value is None else text_of(value) for name, value in raw.items()}
    context[root] = texts
    # Only bytes that are no UTF-8 have an equal text: each character beyond ASCII has several bytes in UTF-8.
    kept = [name for name, value in raw.items() if value is not None and not value.isascii() and texts[name] == value]
    if kept:
        marked = context.get(_AS_LATIN_1)
        context[_AS_LATIN_1] = {**(marked if isinstance(marked, dict) else {}), root: dict.fromkeys(kept, True)}


OnLeftOut = Callable[[str, str], None]
"""Receives the name (in lower case) of a field that is left out because of its value, and the reason."""


def ignore_left_out(field: str, reason: str) -> None:
    """An ``OnLeftOut`` that does nothing."""


def record_left_out(facts: RequestFacts, recorder: Recorder, field: str, reason: str) -> None:
    """Record that a header field is left out: at level info, since a client can cause it, and without the value."""
    recorder.record(LogMessage("info", "header.left-out", f"{field}: {reason}", facts, {"header": field}))


class _NullError(Exception):
    """A variable is null or missing, so the field has no value."""


class _UnfitError(Exception):
    """The field cannot hold a value. The message is the reason, without the value."""


@dataclass(frozen=True, slots=True)
class FieldTemplate:
    """The compiled template of a header field's value."""

    field: str
    """The field's name in lower case."""
    parts: tuple[str | _Part, ...]
    own_extended: frozenset[str]
    """The parameters whose extended form (``name*``) is in the template."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, in order."""
        inner = (piece for part in self.parts if isinstance(part, _Part) for piece in part.inner)
        return tuple(piece for piece in inner if isinstance(piece, Variable))

    @property
    def cookie_names(self) -> frozenset[str]:
        """The names of the cookies in a template of the field Cookie, whether they get values or not."""
        text = ""
        for part in self.parts:
            if isinstance(part, _Part):
                text += f"{part.written}=" if part.written else ""
                text += "".join(piece if isinstance(piece, str) else "\0" for piece in part.inner)
            else:
                text += part
        return frozenset(pair.partition("=")[0].strip(" \t") for pair in text.split(";")) - {""}

    @property
    def leads_to_client_host(self) -> bool:
        """Whether the field is a redirect to a host that a value of the client's request may name."""
        if self.field not in _REDIRECTING:
            return False
        for part in self.parts:
            if isinstance(part, _Part) and part.how == "uri":
                literal = ""
                for piece in part.inner:
                    if isinstance(piece, str):
                        literal += piece
                    elif _WITHOUT_HOST.fullmatch(literal.replace(" ", "")) is None:
                        return False
                    elif piece.root in _OF_CLIENT:
                        return True
        return False

    def expand(
        self, context: Mapping[str, Json], bound: Mapping[str, Json], left_out: OnLeftOut = ignore_left_out
    ) -> bytes | None:
        """Expand the template to the value of the field; None: a variable is null or missing, or has an invalid value.

        An invalid value is reported to ``left_out``.
        """
        text = ""
        try:
            for part in self.parts:
                text += part if isinstance(part, str) else self._part(part, context, bound)
            value = text.encode(errors="surrogateescape").strip(b" \t")
            _refuse(len(value) > MAX_FIELD, f"is longer than {MAX_FIELD} bytes")
        except _NullError:
            return None
        except _UnfitError as error:
            left_out(self.field, str(error))
            return None
        return value

    def _part(self, part: _Part, context: Mapping[str, Json], bound: Mapping[str, Json]) -> str:
        values = [piece if isinstance(piece, str) else _text(piece, context, bound) for piece in part.inner]
        kept = values
        if _AS_LATIN_1 in context:
            pairs = zip(part.inner, values, strict=True)
            kept = [text if isinstance(piece, str) else _with_its_bytes(piece, text, context) for piece, text in pairs]
        _refuse_outer_whitespace(part, self.field, values)
        if part.how == "plain":
            (text,) = kept
            if self.field == "cookie" and len(self.parts) > 1:
                _refuse(";" in text, "a semicolon would begin another cookie")
            return text
        if part.how == "uri":
            return _uri(part.inner, values)
        if part.name.endswith("*"):
            encoded = (
                text if isinstance(piece, str) else quote(text, safe=_ATTR_SAFE)
                for piece, text in zip(part.inner, values, strict=True)
            )
            return "".join((part.written, "=", *encoded))
        return self._parameter(part, "".join(values), "".join(kept))

    def _parameter(self, part: _Part, text: str, kept: str) -> str:
        """The parameter or quoted string with the value ``text``; ``kept``: the same, by ``_with_its_bytes``."""
        prefix = f"{part.written}=" if part.written else ""
        if self.field == "cookie":
            _refuse(";" in text, "a semicolon would begin another cookie")
            return f'{prefix}"{kept}"' if part.how == "quoted" else prefix + kept
        if self.field in _TAG_FIELDS:
            _refuse('"' in text, "a quote would end the entity tag")
            return f'{prefix}"{kept}"'
        extended = _EXTENDED.get(self.field)
        if extended is not None and not text.isascii() and extended.fullmatch(part.name):
            fallback = f"{prefix}{_quoted(_ascii(text))}"
            if part.name in self.own_extended:
                return fallback
            return f"{fallback}; {part.written}*=UTF-8''{quote(text, safe=_ATTR_SAFE)}"
        if part.how == "bare" and (TOKEN_TEXT if self.field in _STRICT else _KEEPS_INSIDE).fullmatch(text):
            return prefix + kept
        return prefix + _quoted(kept)


def compile_field(field: str, text: str, resolve: Resolver) -> FieldTemplate:
    """Compile the template of the header field ``field``.

    Raises:
        ValueError: the template is invalid, a literal is not printable ASCII, or ``resolve`` refused a name.
    """
    compiler = _Compiler(field.lower())
    for piece in parse_template(text):
        if isinstance(piece, str):
            if not (piece.isascii() and piece.isprintable()):
                raise ValueError("a header may hold only printable ASCII characters")
            compiler.literal(piece)
        elif piece.operator:
            raise ValueError(f"{{{piece.operator}…}} makes a query; write {{name}} in a header")
        else:
            compiler.variable(resolve(piece.names[0]))
    return FieldTemplate(compiler.field, tuple(compiler.end()), compiler.extended)


class _Compiler:
    """State machine that reads a template from left to right and determines the encoding of each variable.

    ``_how`` is the state: the place of the next character or variable.
    """

    def __init__(self, field: str) -> None:
        self.field = field
        self.extended: frozenset[str] = frozenset()
        self._parts: list[str | _Part] = []
        self._literal = ""
        """The plain text since the last part."""
        self._how: How = "uri" if field in _URI_FIELDS else "plain"
        self._written = ""
        self._inner: list[str | Variable] = []
        """The content of the open quoted string, parameter or URI so far."""
        self._escape = False

    def literal(self, text: str) -> None:
        """Read literal text."""
        for character in text:
            if self._how == "plain":
                self._plain(character)
            elif self._how == "bare" and character in _ENDS_PARAMETER:
                self._close()
                self._plain(character)
            elif self._how == "quoted" and character == '"' and not self._escape:
                self._close()
            elif self._how == "uri" and character == ">" and self.field == "link":
                self._close()
                self._plain(character)
            else:
                self._escape = self._how == "quoted" and character == "\\" and not self._escape
                if not self._escape:
                    self._inner.append(character)

    def variable(self, variable: Variable) -> None:
        """Read a variable."""
        if self._how == "plain" and (found := _PARAMETER.search(self._literal)) is not None:
            self._literal = self._literal[: found.start(1)]
            self._how, self._written, self._inner = "bare", found[1], [*filter(None, (found[2],))]
        if self._how == "plain":
            self._flush()
            self._parts.append(_Part("plain", "", "", (variable,)))
        else:
            self._inner.append(variable)

    def end(self) -> list[str | _Part]:
        """End the template, set ``extended`` and return the parts. To be called once.

        What is still open is closed: a parameter, a URI, or a quoted string without a variable.

        Raises:
            ValueError: a quoted string with a variable in it is not closed.
        """
        if self._how == "quoted" and any(isinstance(piece, Variable) for piece in self._inner):
            raise ValueError('a quoted string has no closing "')
        if self._how != "plain":
            self._close()
        self._flush()
        names = [part.name for part in self._parts if isinstance(part, _Part)]
        for part in self._parts:
            if isinstance(part, str):
                names += (piece.partition("=")[0].strip().lower() for piece in part.split(";"))
        self.extended = frozenset(name.removesuffix("*") for name in names if name.endswith("*"))
        return self._parts

    def _plain(self, character: str) -> None:
        if character == '"':
            found = _PARAMETER.search(self._literal)
            self._written = found[1] if found is not None and not found[2] else ""
            self._literal = self._literal[: found.start(1)] if self._written and found else self._literal
            self._how = "quoted"
        else:
            self._literal += character
            if (character == "<" and self.field == "link") or (character in ";," and self.field == "refresh"):
                self._how = "uri"

    def _close(self) -> None:
        """End the open quoted string, parameter or URI."""
        inner = tuple(_joined(self._inner))
        how, written = self._how, self._written
        if any(isinstance(piece, Variable) for piece in inner):
            self._flush()
            self._parts.append(_Part(how, written.lower(), written, inner))
        else:
            text = "".join(piece for piece in inner if isinstance(piece, str))
            prefix = f"{written}=" if written else ""
            self._literal += prefix + _quoted(text) if how == "quoted" else prefix + text
        self._how, self._written, self._inner, self._escape = "plain", "", [], False

    def _flush(self) -> None:
        if self._literal:
            self._parts.append(self._literal)
            self._literal = ""


def _joined(inner: list[str | Variable]) -> Iterator[str | Variable]:
    """Join adjacent literals."""
    literal = ""
    for piece in inner:
        if isinstance(piece, str):
            literal += piece
            continue
        if literal:
            yield literal
        literal = ""
        yield piece
    if literal:
        yield literal


def _refuse(unfit: bool, reason: str) -> None:
    if unfit:
        raise _UnfitError(reason)


def _refuse_outer_whitespace(part: _Part, field: str, values: list[str]) -> None:
    """Refuse a value of ``auth`` whose outer whitespace the receiver would remove. Raises _UnfitError."""
    if part.how == "plain" or (part.how == "bare" and field == "cookie"):
        for piece, text in zip(part.inner, values, strict=True):
            if isinstance(piece, Variable) and piece.of_identity and text != text.strip():
                raise _UnfitError(f"{{{piece.name}}} begins or ends with whitespace, which no field keeps")


def _text(variable: Variable, context: Mapping[str, Json], bound: Mapping[str, Json]) -> str:
    """The text of a variable's value. Raises _NullError or _UnfitError."""
    value = variable.value(context, bound)
    if value is None:
        raise _NullError
    try:
        text = scalar_text(value, variable.name, client_parameter="")
    except BadValueError as error:
        raise _UnfitError(str(error)) from error
    if not fits_field(text):
        raise _UnfitError(f"{{{variable.name}}} holds a control character, or is no Unicode")
    return text


def _with_its_bytes(variable: Variable, text: str, context: Mapping[str, Json]) -> str:
    """The value of a variable, with surrogates in place of the bytes of a value that is sent in ISO-8859-1."""
    value: Json = context[_AS_LATIN_1]
    for key in (variable.root or "", *variable.fields):
        value = value.get(key) if isinstance(value, dict) else None
    return text.encode("latin-1").decode("ascii", "surrogateescape") if value is True else text


def _quoted(text: str) -> str:
    escaped = _ESCAPED.sub(r"\\\1", text)
    return f'"{escaped}"'


def _uri(inner: Inner, values: list[str]) -> str:
    text = ""
    for piece, value in zip(inner, values, strict=True):
        if isinstance(piece, str):
            text += piece
            continue
        value = quote(value, safe=_URI_SAFE)
        # "//" at the beginning would make the value a host instead of a path.
        text += f"%2F{value[1:]}" if value.startswith("/") and _AT_ROOT.fullmatch(text.replace(" ", "")) else value
    if isinstance(inner[0], str) and _has_dot_segment(text):
        own = "".join(piece for piece in inner if isinstance(piece, str))
        _refuse(not _has_dot_segment(own), "a value has a dot segment, which would leave the path of the template")
    return text


def _has_dot_segment(uri: str) -> bool:
    path = _ENDS_PATH.split(uri, maxsplit=1)[0]
    return not _DOTS.isdisjoint(_SEPARATORS.split(unquote(path)))


def _ascii(text: str) -> str:
    """The ASCII fallback for clients without RFC 8187: letters without accents, and ``_`` for anything else."""
    return "".join(map(_fallback, (character for character in text if not unicodedata.combining(character))))


def _fallback(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    # Only letters and digits: the decomposition of U+037E, for example, is a semicolon.
    return character if character.isascii() else base if base.isascii() and base.isalnum() else "_"
