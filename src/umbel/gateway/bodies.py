"""A request's body: read under its limit and the deadline, and decoded into the value that plans see as ``body``.

Called by ``inputs.py`` for routes that use a body. What is too large or of another type is refused before it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterable
from itertools import islice
from typing import Literal

import trio
from werkzeug.http import parse_options_header
from werkzeug.sansio.utils import get_content_length

from ..composition.decode import BadBodyError, decode_json
from ..composition.request import is_identity
from ..errors import RequestError
from ..model import Json
from .fields import Fields
from .urlencoded import BadFieldError, Names, read_fields

BodyForm = Literal["json", "form", "bytes"]

FORM_FIELDS_MAX = 1000
BAD_ESCAPES_MAX = 1000
"""The most percent signs of a form that begin no escape. They stay as they are, and cost more to read than escapes."""

_MEDIA_TYPE_CHARS_MAX = 1024
_FORM = "application/x-www-form-urlencoded"
_TYPES = {"json": "application/json", "form": _FORM}
_OF_A_BODY = ("content-type", "content-encoding", "transfer-encoding")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})


def known_length(fields: Fields) -> int | None:
    """The body's length, where the head says one that counts."""
    return get_content_length(fields.get("content-length"), fields.get("transfer-encoding"))


def may_have_body(fields: Fields) -> bool:
    """Whether the head speaks of a body: by its length, or by how it is coded.

    HTTP/2 may send one without a word of it, so only the reading tells for certain.
    """
    return bool(known_length(fields)) or any(name in fields.by_name for name in _OF_A_BODY)


def check_media_type(fields: Fields, form: BodyForm) -> None:
    """Pass a body of the right type and coding, by its head alone. Bytes may have any: they are not looked into.

    Raises:
        RequestError: 415, with the field that says what is taken (RFC 9110 section 15.5.16).
    """
    if form == "bytes":
        return
    coding = fields.get("content-encoding")
    if coding is not None and not is_identity(coding):
        said = [("accept-encoding", "identity")]
        raise RequestError(415, "A body with a Content-Encoding is not taken here.", fields=said)
    said = [("accept", _TYPES[form])]
    content_type = fields.get("content-type")
    if content_type is not None and len(content_type) > _MEDIA_TYPE_CHARS_MAX:
        raise RequestError(415, f"The Content-Type is longer than {_MEDIA_TYPE_CHARS_MAX} characters.", fields=said)
    media, params = parse_options_header(content_type)
    media = media.lower()
    fits = media == _TYPES[form] or (form == "json" and media.startswith("application/") and media.endswith("+json"))
    if not fits or params.get("charset", "utf-8").lower() not in _UTF8:
        raise RequestError(415, f"The body must be {_TYPES[form]}, in UTF-8.", fields=said)


async def read_body(parts: AsyncIterable[bytes], length: int | None, limit: int, deadline: float = math.inf) -> bytes:
    """The whole body, at most ``limit`` bytes, until ``deadline`` (absolute); ``length`` where it is known.

    Raises:
        RequestError: 413, before anything is read where the length is known; 408, it did not arrive in time.
    """
    if length is not None and length > limit:
        raise RequestError(413, f"The body is larger than the {limit} bytes that this path takes.")
    body = bytearray()
    with trio.CancelScope(deadline=deadline) as scope:
        async for part in parts:
            body += part
            if len(body) > limit:
                raise RequestError(413, f"The body is larger than the {limit} bytes that this path takes.")
    if scope.cancelled_caught:
        raise RequestError(408, "The body did not arrive in time.")
    return bytes(body)


def decode_body(raw: bytes, form: BodyForm, names: Names | None = None) -> Json:
    """The value that plans see: of JSON anything, of a form an object of texts, of bytes null.

    Of a form's repeated fields the last one wins, as with query parameters. ``names``: the fields of a form that are
    read; what others hold is not looked at.

    Raises:
        RequestError: 400, the body is not what its type says.
    """
    if form == "bytes":
        return None
    if form == "json" and not raw:
        raise RequestError(400, "The body is missing; this path needs one in JSON.")
    if form == "json":
        try:
            return decode_json(raw)
        except BadBodyError as error:
            raise RequestError(400, f"The body cannot be used: {error}.") from error
    if next(islice(_BAD_ESCAPE.finditer(raw), BAD_ESCAPES_MAX, None), None) is not None:
        raise RequestError(400, f"The form has more than {BAD_ESCAPES_MAX} percent signs that begin no escape.")
    if raw.count(b"&") >= FORM_FIELDS_MAX:
        raise RequestError(400, f"The form has more than {FORM_FIELDS_MAX} fields.")
    try:
        return dict(read_fields(raw, names))
    except BadFieldError as error:
        field = f'field "{error}" of the form' if str(error) else "name of a field of the form"
        raise RequestError(400, f"The {field} is not percent-encoded UTF-8.") from error
