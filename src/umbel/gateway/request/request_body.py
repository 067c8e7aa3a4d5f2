"""A request's body: read under its limit, and decoded into the value that plans see as ``body``.

What is too large or of another type is refused before it is read. A client's body is read as leniently as an upstream's
but for what could get past a filter in front of the gateway, or past the browser's own check of cross-site requests:
docs/server.md lists what is refused, with the reasons.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable
from itertools import islice
from typing import Literal

from werkzeug.http import parse_options_header
from werkzeug.sansio.utils import get_content_length

from ...composition.decode import BadBodyError, EmptyBodyError, decode_json
from ...composition.decode_large import decode_in_thread, holds_many_values
from ...core.errors import RequestError
from ...core.http.charsets import ASCII_COMPATIBLE, codec_of
from ...core.http.content_coding import codings_of
from ...core.http.media_types import is_json
from ...core.http.syntax import BAD_ESCAPE
from ...core.model import Json
from .request_fields import RequestFields
from .urlencoded import BadFieldError, Names, read_fields

BodyForm = Literal["json", "form", "bytes"]

FORM_FIELDS_MAX = 1000
"""The most fields of a form where a body may not be large."""
_FIELD_BYTES = 1000
"""Bytes of ``max_body`` that make room for one field more."""
BAD_ESCAPES_MAX = 1000
"""The most percent signs of a form that begin no escape. They stay as they are, and cost more to read than escapes."""

_MEDIA_TYPE_CHARS_MAX = 1024
_FORM = "application/x-www-form-urlencoded"
_TYPES = {"json": "application/json", "form": _FORM}
_OF_A_BODY = ("content-type", "content-encoding", "transfer-encoding")
# A filter that looks for ASCII must find what the gateway will read: these say another charset than it would guess.
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def known_length(fields: RequestFields) -> int | None:
    """The body's length, where the head says one that counts."""
    return get_content_length(fields.get("content-length"), fields.get("transfer-encoding"))


def may_have_body(fields: RequestFields) -> bool:
    """Whether the head speaks of a body: by its length, or by how it is coded.

    HTTP/2 may send one without a word of it, so only the reading shows it for certain.
    """
    return bool(known_length(fields)) or any(name in fields.by_name for name in _OF_A_BODY)


def check_media_type(fields: RequestFields, form: BodyForm) -> str:
    """The charset that a body of the right type and coding is in, by its head alone; empty where it names none.

    Bytes may be of any: they are not looked into.

    Raises:
        RequestError: 415, with the field that says what is taken (RFC 9110 section 15.5.16).
    """
    if form == "bytes":
        return ""
    if codings_of([fields.get("content-encoding", "").encode("latin-1")]):
        said = [("accept-encoding", "identity")]
        raise RequestError(415, "A body with a Content-Encoding is not taken here.", fields=said)
    said = [("accept", _TYPES[form])]
    content_type = fields.get("content-type")
    if content_type is not None and len(content_type) > _MEDIA_TYPE_CHARS_MAX:
        raise RequestError(415, f"The Content-Type is longer than {_MEDIA_TYPE_CHARS_MAX} characters.", fields=said)
    media, params = parse_options_header(_only(content_type))
    charset = params.get("charset", "").strip("'").lower()
    codec = codec_of(charset) if charset else "utf-8"
    if form == "form":
        fits = media.lower() == _FORM and codec in ("utf-8", "ascii")
    else:
        fits = is_json(media) and codec in ASCII_COMPATIBLE
    if not fits:
        raise RequestError(415, f"The body must be {_TYPES[form]}, in UTF-8.", fields=said)
    return charset


def _only(content_type: str | None) -> str | None:
    """A Content-Type; where the same one came several times, one of them."""
    if content_type is not None and "," in content_type:
        given = {value.strip() for value in content_type.split(",")}
        if len(given) == 1:
            return given.pop()
    return content_type


async def read_body(parts: AsyncIterable[bytes], length: int | None, limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes; ``length`` where it is known.

    Raises:
        RequestError: 413, before anything is read where the length is known.
    """
    if length is not None and length > limit:
        raise RequestError(413, f"The body is larger than the {limit} bytes that this path takes.")
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > limit:
            raise RequestError(413, f"The body is larger than the {limit} bytes that this path takes.")
    return bytes(body)


async def decode_whole(raw: bytes, form: BodyForm, charset: str, names: Names | None, max_body: int) -> Json:
    """``decode_body``; JSON of many values is decoded while others have their turn.

    Raises:
        RequestError: 400, the body is not what its type says.
    """
    if form != "json" or raw.startswith(_UTF16_MARKS) or not holds_many_values(raw, max_body):
        return decode_body(raw, form, charset, names, max_body)
    try:
        return await decode_in_thread(raw, max_body, charset or "utf-8")
    except BadBodyError as error:
        raise RequestError(400, f"The body cannot be used: {error}.") from error


def decode_body(raw: bytes, form: BodyForm, charset: str = "", names: Names | None = None, max_body: int = 0) -> Json:
    """The value that plans see: of JSON anything, of a form an object of texts, of bytes null.

    ``charset`` is what ``check_media_type`` gave. Of a form's repeated fields the last one wins, as with query
    parameters. ``names``: the fields of a form that are read; what others hold is not looked at. How many fields there
    may be grows with ``max_body``.

    Raises:
        RequestError: 400, the body is not what its type says.
    """
    if form == "bytes":
        return None
    if form == "json":
        try:
            if raw.startswith(_UTF16_MARKS):
                raise BadBodyError("the JSON is in UTF-16, and not in UTF-8")
            return decode_json(raw, lambda: charset or "utf-8")
        except EmptyBodyError as error:
            raise RequestError(400, "The body is missing; this path needs one in JSON.") from error
        except BadBodyError as error:
            raise RequestError(400, f"The body cannot be used: {error}.") from error
    fields_max = max(FORM_FIELDS_MAX, max_body // _FIELD_BYTES)
    escapes_max = max(BAD_ESCAPES_MAX, fields_max)
    if next(islice(BAD_ESCAPE.finditer(raw), escapes_max, None), None) is not None:
        raise RequestError(400, f"The form has more than {escapes_max} percent signs that begin no escape.")
    if raw.count(b"&") >= fields_max:
        raise RequestError(400, f"The form has more than {fields_max} fields.")
    try:
        return dict(read_fields(raw, names))
    except BadFieldError as error:
        field = f'field "{error}" of the form' if str(error) else "name of a field of the form"
        raise RequestError(400, f"The {field} is not percent-encoded UTF-8.") from error
