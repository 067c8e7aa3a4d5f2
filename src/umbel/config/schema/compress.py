"""The section ``[compress]``: compression of responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ...core.http.compressors import Coding, how_to_install, is_available
from ...core.http.syntax import TOKEN_TEXT
from .section import AS_TUPLE, Section
from .values.units import Size


def _media_type(value: str) -> str:
    main, _, sub = value.partition("/")
    words = [main, *([] if sub == "*" else [sub.removeprefix("*+")])]
    if not all(TOKEN_TEXT.fullmatch(word) and "*" not in word for word in words):
        raise ValueError(
            f'"{value}" is not a media type; write one such as "text/html", or "text/*", or "application/*+json"'
        )
    return value.lower()


def _available(value: Coding) -> Coding:
    if not is_available(value):
        raise ValueError(f'"{value}" needs a library that is not installed: {how_to_install(value)}')
    return value


MediaType = Annotated[str, AfterValidator(_media_type)]
Algorithm = Annotated[Coding, AfterValidator(_available)]


class Compress(Section):
    """Compression of responses, as Accept-Encoding allows. Without this table no response is compressed."""

    types: Annotated[tuple[MediaType, ...], AS_TUPLE, Field(min_length=1)] = (
        "application/json",
        "application/*+json",
        "application/xml",
        "application/*+xml",
        "application/javascript",
        "image/svg+xml",
        "text/*",
    )
    """The media types of the responses that are compressed."""
    min: Size = 1024
    """The smallest body that is compressed. A client that refuses an uncoded response gets smaller ones coded too."""
    algorithms: Annotated[tuple[Algorithm, ...], AS_TUPLE, Field(min_length=1)] = ("zstd", "br", "gzip")
    """The content codings, the preferred one first: it decides where a client likes several equally. zstd needs
    pip install 'umbel[zstd]' before Python 3.14, and br pip install 'umbel[br]'. A coding of the default whose library
    is missing is left out."""
    proxied: bool = False
    """Whether the response to a request with Via is compressed too. Default: false, since a proxy in front compresses
    by itself, and may change what it gets coded."""
