"""A request's body: read under its limit and the deadline, and decoded into the value that plans see as ``body``.

Called by ``inputs.py`` for routes that use a body. What is too large or of another type is refused before it is read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from typing import Literal
from urllib.parse import parse_qsl

import trio
from werkzeug.http import parse_options_header
from werkzeug.sansio.utils import get_content_length

from ..composition.decode import BadBodyError, decode_json
from ..errors import RequestError
from ..model import Json
from .fields import Fields

BodyForm = Literal["json", "form", "bytes"]

FORM_FIELDS_MAX = 1000

_MEDIA_TYPE_CHARS_MAX = 1024
_FORM = "application/x-www-form-urlencoded"
_TYPES = {"json": "application/json", "form": _FORM}
_OF_A_BODY = ("content-type", "content-encoding", "transfer-encoding")
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
    """Pass a body of the right type and coding, by its head alone.

    Raises:
        RequestError: 415 (RFC 9110 section 15.5.16).
    """
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "A body with a Content-Encoding is not taken here.")
    if form == "bytes":
        return
    content_type = fields.get("content-type")
    if content_type is not None and len(content_type) > _MEDIA_TYPE_CHARS_MAX:
        raise RequestError(415, f"The Content-Type is longer than {_MEDIA_TYPE_CHARS_MAX} characters.")
    media, params = parse_options_header(content_type)
    media = media.lower()
    fits = media == _TYPES[form] or (form == "json" and media.startswith("application/") and media.endswith("+json"))
    if not fits or params.get("charset", "utf-8").lower() not in _UTF8:
        raise RequestError(415, f"The body must be {_TYPES[form]}, in UTF-8.")


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


def decode_body(raw: bytes, form: BodyForm) -> Json:
    """The value that plans see: of JSON anything, of a form an object of texts, of bytes null.

    Of a form's repeated fields the last one wins, as with query parameters.

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
    try:
        fields = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX)
    except ValueError as error:
        raise RequestError(
            400, f"The body is not a form in percent-encoded UTF-8 of at most {FORM_FIELDS_MAX} fields."
        ) from error
    return dict(fields)
