"""httpx requests, responses and headers, made of validated parts without httpx's normalisation.

httpx's constructors normalise every field and encode content, which takes 4 to 40 µs each and would be needed for each
call. This is the only file that uses private attributes of httpx. ``test_httpx_messages.py`` compares the results with
those of httpx's constructors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

import httpx

from ..http.charsets import charset_of, codec_of
from ..http.header_field import Field


def fields_of(headers: httpx.Headers) -> list[Field]:
    """The fields of ``headers``; only to be read."""
    return headers._list


def response_fields(response: httpx.Response) -> Sequence[Field]:
    """The header fields of a response; only to be read."""
    # Once ``headers`` was made, the user may have changed it, and ``fields`` may be outdated.
    if type(response) is CompleteResponse and "headers" not in response.__dict__:
        return response.fields
    return response.headers._list


def headers_of(fields: Iterable[Field]) -> httpx.Headers:
    """Make httpx headers of ``fields`` (name, name in lower case, value), which are neither checked nor changed."""
    headers = httpx.Headers.__new__(httpx.Headers)
    headers._list = [*fields]
    headers._encoding = None
    return headers


_EMPTY = httpx.ByteStream(b"")


def request_of(
    method: str,
    fields: Iterable[Field],
    content: bytes | None,
    extensions: dict[str, Any],
    *,
    url: httpx.URL,
    body: httpx.AsyncByteStream | None = None,
) -> httpx.Request:
    """Make a request to ``url``, with its Host. ``method`` is in upper case.

    As in httpx's own requests, a Content-Length is added for ``content``, and the content counts as read. ``body``, in
    place of ``content``, is framed by the Content-Length among ``fields``, or chunked.
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
    if body is not None:
        fields = list(fields)
        request.stream = body
        del request._content
        framed = any(field[1] == b"content-length" for field in fields)
        head = (host,) if framed else (host, (b"Transfer-Encoding", b"transfer-encoding", b"chunked"))
    request.headers = headers_of((*head, *fields))
    return request


class UpstreamResponse(httpx.Response):
    """httpx response whose text is decoded only by a charset of the closed list (``charsets.py``).

    httpx itself would give any charset that an upstream names to Python's registry of codecs.
    """

    @property
    def charset_encoding(self) -> str | None:
        """The charset of Content-Type in lower case; None if there is none, or the charset is not listed."""
        charset = charset_of(self.headers.get("content-type", ""))
        return charset.lower() if charset is not None and codec_of(charset) is not None else None


class CompleteResponse(UpstreamResponse):
    """httpx response with its complete body, in the state after ``aread()`` and ``aclose()``.

    Only for a body without content coding: ``content`` is the body as it was received.

    Args:
        elapsed: seconds between request and response, for ``Response.elapsed``.
    """

    _request = None
    next_request = None
    is_closed = True
    is_stream_consumed = True
    default_encoding = "utf-8"
    names: Collection[bytes] | None = None
    """The names of ``fields`` in lower case, if they are known; ``headers`` may have been changed since."""

    # super().__init__() is not called: avoiding its cost is the purpose of this class.
    def __init__(
        self, status: int, fields: Sequence[Field], content: bytes, extensions: dict[str, Any], elapsed: float
    ) -> None:
        self.status_code = status
        self.fields = fields
        """The fields as they were received; ``headers`` is made of them on first use."""
        self.extensions = extensions
        self._num_bytes_downloaded = len(content)
        self._content = content
        self._seconds = elapsed

    # Attributes that are rarely used are made on first use. (httpx declares them as plain attributes.)

    @cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # can be read and set like an attribute
        """The header fields."""
        return headers_of(self.fields)

    @cached_property
    def history(self) -> list[httpx.Response]:  # type: ignore[override]  # can be read and set like an attribute
        """Empty: no redirect is ever followed."""
        return []

    @cached_property
    def stream(self) -> httpx.ByteStream:  # type: ignore[override]  # can be read and set like an attribute
        """The body as a stream."""
        return httpx.ByteStream(self._content)

    @cached_property
    def _elapsed(self) -> timedelta:  # type: ignore[override]  # can be read and set like an attribute
        return timedelta(seconds=self._seconds)

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body. Unlike in httpx, this works after the body was read."""
        async for piece in self.aiter_bytes(chunk_size):
            yield piece
