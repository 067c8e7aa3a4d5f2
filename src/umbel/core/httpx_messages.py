"""httpx's messages, made of validated parts without httpx's normalisation.

httpx's own constructors take 4 to 40 µs each, which is much for a message per call, because they normalise every field
and encode content. This is the one file that touches what httpx keeps to itself (the triples of ``Headers``, the
attributes of a ``Response``); ``test_httpx_messages.py`` holds it against what httpx makes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

import httpx

from .http.charsets import charset_of, codec_of
from .http.header_field import Field


def fields_of(headers: httpx.Headers) -> list[Field]:
    """The fields of ``headers``, to be read only."""
    return headers._list


def response_fields(response: httpx.Response) -> Sequence[Field]:
    """The header fields of a response, to be read only."""
    # Once somebody has asked for the headers, he may have changed them.
    if type(response) is CompleteResponse and "headers" not in response.__dict__:
        return response.fields
    return response.headers._list


def headers_of(fields: Iterable[Field]) -> httpx.Headers:
    """Headers that hold ``fields``."""
    headers = httpx.Headers.__new__(httpx.Headers)
    headers._list = [*fields]
    headers._encoding = None
    return headers


_EMPTY = httpx.ByteStream(b"")


def request_of(
    method: str, fields: Iterable[Field], content: bytes | None, extensions: dict[str, Any], *, url: httpx.URL
) -> httpx.Request:
    """A request to ``url``, whose Host is the URL's.

    ``method`` is in upper case. As of httpx's own, ``content`` has a Content-Length, and is read already.
    """
    request = httpx.Request.__new__(httpx.Request)
    request.method = method
    request.url = url
    request.extensions = extensions
    if content is None:
        request.stream = _EMPTY
        request._content = b""
        length = b"0" if method in ("POST", "PUT", "PATCH") else None
    else:
        request.stream = httpx.ByteStream(content)
        request._content = content
        length = b"%d" % len(content) if content or method in ("POST", "PUT", "PATCH") else None
    host = (b"Host", b"host", url.netloc)
    head = (host,) if length is None else (host, (b"Content-Length", b"content-length", length))
    request.headers = headers_of((*head, *fields))
    return request


class UpstreamResponse(httpx.Response):
    """A response whose text is decoded by a charset of the closed list alone (``charsets.py``).

    httpx hands the charset that an upstream names to Python's registry of codecs, and parses Content-Type as e-mail
    does.
    """

    @property
    def charset_encoding(self) -> str | None:
        """The charset that Content-Type names, in lower case; None where it names none, or one that is not listed."""
        charset = charset_of(self.headers.get("content-type", ""))
        return charset.lower() if charset is not None and codec_of(charset) is not None else None


class CompleteResponse(UpstreamResponse):
    """A response whose body is here, read and closed: what ``aread()`` and ``close()`` leave of any other.

    For bodies without a content coding: what came is what ``content`` is.

    Args:
        elapsed: seconds that it took; httpx's client would set them only of a stream that it closes itself.
    """

    _request = None
    next_request = None
    is_closed = True
    is_stream_consumed = True
    default_encoding = "utf-8"
    names: Collection[bytes] | None = None
    """The names of the fields that came, in lower case, where they are known; ``headers`` may have been changed."""

    # No super().__init__(): that is the point.
    def __init__(
        self, status: int, fields: Sequence[Field], content: bytes, extensions: dict[str, Any], elapsed: float
    ) -> None:
        self.status_code = status
        self.fields = fields
        """The fields as they came; ``headers`` is made of them when it is asked for."""
        self.extensions = extensions
        self._num_bytes_downloaded = len(content)
        self._content = content
        self._seconds = elapsed

    # What few ask for is made when it is asked for.

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # as above
        """The header fields."""
        return headers_of(self.fields)

    @cached_property
    def history(self) -> list[httpx.Response]:  # type: ignore[override]  # an attribute, to whoever reads or sets it
        """Empty: no redirect is ever followed."""
        return []

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]  # as above
        """The body once more."""
        return httpx.ByteStream(self._content)

    @cached_property
    def _elapsed(self) -> timedelta:  # type: ignore[override]  # as above
        return timedelta(seconds=self._seconds)

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body, although it has been read: a caller that streams need not know."""
        async for piece in self.aiter_bytes(chunk_size):
            yield piece
