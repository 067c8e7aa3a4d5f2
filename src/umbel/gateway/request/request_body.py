"""Request body: read within its limit, its content coding removed, and decoded to the value of ``body`` in a plan.

A body that is too large or of another media type is refused before it is read. Bodies are refused, too, that a filter
in front of the gateway could interpret differently, or that would evade a browser's checks for cross-site requests.
docs/server.md lists them with the reasons.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterable, Collection, Iterable
from itertools import islice
from typing import Literal

import trio
from werkzeug.http import parse_options_header
from werkzeug.sansio.utils import get_content_length

from ...composition.decode import BadBodyError, EmptyBodyError, decode_json
from ...composition.decode_large import decode_in_thread, holds_many_values
from ...core.errors import RequestError
from ...core.http.charsets import ASCII_COMPATIBLE, codec_of
from ...core.http.compressors import is_available
from ...core.http.content_coding import GZIP
from ...core.http.decompression import OVERHEAD_MAX, BadCodingError, DecodedCoding, make_decompressor
from ...core.http.media_types import is_json
from ...core.http.syntax import BAD_ESCAPE
from ...core.model import Json
from .request_fields import RequestFields
from .urlencoded import BadFieldError, Names, read_fields

BodyForm = Literal["json", "form", "bytes"]

FORM_FIELDS_MAX = 1000
"""Maximum number of fields of a form, unless ``max_body`` allows more."""
_FIELD_BYTES = 1000
"""Each this many bytes of ``max_body`` allow one field."""
BAD_ESCAPES_MAX = 1000
"""Maximum number of percent signs in a form that begin no escape. They are kept, but cost more time than escapes."""
RATIO_MAX = 100
"""Maximum bytes to which each byte of a coded body may decode, on average."""

_STEP_MAX = 1_000_000
"""Decoded bytes after which other tasks run."""
_CODINGS: tuple[DecodedCoding, ...] = ("gzip", "deflate", "zstd", "br")
_NO_CODING = frozenset({"", "identity", "utf-8"})
"""Names that say that there is no coding. Some clients write the charset of their JSON here; nothing decodes it."""
_MEDIA_TYPE_CHARS_MAX = 1024
_FORM = "application/x-www-form-urlencoded"
_TYPES = {"json": "application/json", "form": _FORM}
_OF_A_BODY = ("content-type", "content-encoding", "transfer-encoding")
# Byte order marks of UTF-16. A filter that searches for ASCII would find nothing in such a body, so it is refused.
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def known_length(fields: RequestFields) -> int | None:
    """The length of the body by Content-Length; None without this field, or if the body is chunked.

    None does not say that a body comes: a GET without a body gives None too.
    """
    return get_content_length(fields.get("content-length"), fields.get("transfer-encoding"))


def may_have_body(fields: RequestFields) -> bool:
    """Whether the head announces a body by its length, media type or coding.

    An HTTP/2 request may have a body without any of these fields.
    """
    return bool(known_length(fields)) or any(name in fields.by_name for name in _OF_A_BODY)


def check_coding(fields: RequestFields, form: BodyForm) -> DecodedCoding | None:
    """Check the content coding of a body by its head, and return it; None if the body has none, or stays as it is.

    For the form "bytes" any coding is accepted, and stays. Otherwise every name counts, an unknown one too: a filter in
    front could decode what it names. Only ``_NO_CODING`` says that there is none.

    Raises:
        RequestError: 415, with the field Accept-Encoding (RFC 9110 section 15.5.16).
    """
    if form == "bytes" or "content-encoding" not in fields.by_name:
        return None
    members = fields.by_name["content-encoding"].split(",")
    names = [name for member in members if (name := member.strip(" \t").lower()) not in _NO_CODING]
    if not names:
        return None
    name = "gzip" if names[0].encode("latin-1") in GZIP else names[0]
    accepted = {coding: coding for coding in _CODINGS if is_available(coding)}
    if len(names) == 1 and name in accepted:
        return accepted[name]
    said = [("accept-encoding", ", ".join(accepted))]
    raise RequestError(415, "The body's Content-Encoding is not accepted here, or there are several.", fields=said)


def check_media_type(fields: RequestFields, form: BodyForm) -> str:
    """Check the media type of a body by its head, and return the charset; empty if none is named.

    For the form "bytes" anything is accepted.

    Raises:
        RequestError: 415, with a field that says what is accepted (RFC 9110 section 15.5.16).
    """
    if form == "bytes":
        return ""
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
    """The Content-Type; if equal ones were sent several times, one of them."""
    if content_type is not None and "," in content_type:
        given = {value.strip() for value in content_type.split(",")}
        if len(given) == 1:
            return given.pop()
    return content_type


def check_length(length: int | None, limit: int, *, coded: bool = False) -> None:
    """Check the length of a body, None if it is unknown.

    Args:
        coded: whether the body has a coding, whose overhead does not count.

    Raises:
        RequestError: 413, it is over ``limit``.
    """
    if length is not None and length > limit + OVERHEAD_MAX * coded:
        raise _too_large(limit)


async def read_body(parts: AsyncIterable[bytes], length: int | None, limit: int) -> bytes:
    """Read the whole body, at most ``limit`` bytes. ``length`` is the length of the body; None if it is unknown.

    Raises:
        RequestError: 413; before anything is read if the length is known.
    """
    check_length(length, limit)
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def read_coded_body(parts: AsyncIterable[bytes], length: int | None, limit: int, coding: DecodedCoding) -> bytes:
    """Read the whole body and remove its content coding, as it comes. At most the decoded body is in memory.

    Whether a body is accepted does not depend on the parts in which it comes. A body without any byte stays empty.

    Args:
        parts: the parts of the coded body.
        length: the length of the coded body; None if it is unknown.
        limit: maximum bytes of the decoded body.
        coding: the content coding of the body.

    Raises:
        RequestError: 413, the decoded body is larger than ``limit``, or than ``RATIO_MAX`` times the coded body; 400,
            the coding is broken or incomplete.
    """
    check_length(length, limit, coded=True)
    decompressor, body = make_decompressor(coding), bytearray()
    received = since_checkpoint = 0
    most = limit if length is None else min(limit, RATIO_MAX * length)
    try:
        async for part in parts:
            received += len(part)
            if received > limit + OVERHEAD_MAX:
                raise _too_large(limit)
            for piece in decompressor.feed(part):
                body += piece
                if len(body) > most:
                    raise _too_large(limit) if len(body) > limit else _too_dense()
                since_checkpoint += len(piece)
                if since_checkpoint > _STEP_MAX:
                    since_checkpoint = 0
                    await trio.lowlevel.checkpoint()
    except BadCodingError as error:
        raise RequestError(400, f"The body is not valid {coding}.") from error
    if received and not decompressor.is_complete:
        raise RequestError(400, f"The body is incomplete {coding}, or other bytes follow it.")
    if len(body) > RATIO_MAX * received:
        raise _too_dense()
    return bytes(body)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"The body is larger than the {limit} bytes that this path accepts.")


def _too_dense() -> RequestError:
    return RequestError(413, f"The body decodes to more than {RATIO_MAX} times its size.")


async def decode_whole(
    raw: bytes, form: BodyForm, charset: str, names: Names | None, max_body: int, lists: Collection[str] = ()
) -> Json:
    """``decode_body`` that decodes JSON with many values in a thread, so that other tasks run meanwhile.

    Cancelled, it abandons the thread. Arguments: as for ``decode_body``.

    Raises:
        RequestError: 400, the body is malformed.
    """
    if form != "json" or raw.startswith(_UTF16_MARKS) or not holds_many_values(raw, max_body):
        return decode_body(raw, form, charset, names, max_body, lists)
    try:
        return await decode_in_thread(raw, max_body, charset or "utf-8")
    except BadBodyError as error:
        raise RequestError(400, f"The body cannot be used: {error}.") from error


def decode_body(
    raw: bytes,
    form: BodyForm,
    charset: str = "",
    names: Names | None = None,
    max_body: int = 0,
    lists: Collection[str] = (),
) -> Json:
    """Decode a body: "json" to any value, "form" to an object of texts and lists of texts, "bytes" to null.

    Args:
        raw: the body.
        form: how to decode it.
        charset: the result of ``check_media_type``.
        names: the form fields to decode; None: all.
        lists: the form fields that become lists, empty ones if the form lacks them. Of other fields that are repeated
            the last one counts.
        max_body: the maximum bytes of a body; the maximum number of form fields grows with it.

    Raises:
        RequestError: 400, the body is malformed.
    """
    if form == "bytes":
        return None
    if form == "json":
        try:
            if raw.startswith(_UTF16_MARKS):
                raise BadBodyError("the JSON is in UTF-16 and must be in UTF-8")
            return decode_json(raw, lambda: charset or "utf-8")
        except EmptyBodyError as error:
            raise RequestError(400, "The body is missing; this path needs a JSON body.") from error
        except BadBodyError as error:
            raise RequestError(400, f"The body cannot be used: {error}.") from error
    fields_max = max(FORM_FIELDS_MAX, max_body // _FIELD_BYTES)
    escapes_max = max(BAD_ESCAPES_MAX, fields_max)
    if next(islice(BAD_ESCAPE.finditer(raw), escapes_max, None), None) is not None:
        raise RequestError(400, f"The form has more than {escapes_max} percent signs that begin no escape.")
    if raw.count(b"&") >= fields_max:
        raise RequestError(400, f"The form has more than {fields_max} fields.")
    try:
        fields = read_fields(raw, names)
        return _with_lists(fields, lists) if lists else dict(fields)
    except BadFieldError as error:
        field = f'field "{error}" of the form' if str(error) else "name of a field of the form"
        raise RequestError(400, f"The {field} is not percent-encoded UTF-8.") from error


def _with_lists(fields: Iterable[tuple[str, str]], lists: Collection[str]) -> Json:
    found: dict[str, list[Json]] = {name: [] for name in lists}
    texts: dict[str, Json] = {}
    for name, text in fields:
        if name in found:
            found[name].append(text)
        else:
            texts[name] = text
    return {**texts, **found}
