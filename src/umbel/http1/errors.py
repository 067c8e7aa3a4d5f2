"""The errors of HTTP/1.1 messages that are read: what is wrong, and the name of the error in RFC 9209 section 2.3.

They say nothing of what becomes of the call or of the request. ``upstream/errors.py`` makes failures of calls of them.
"""

from __future__ import annotations

from ..core.errors import UmbelError


class MessageError(UmbelError):
    """The message cannot be read. Its reader is of no more use, nor is its connection.

    Args:
        detail: what is wrong, for records only.
        proxy_error: the ``error`` parameter of Proxy-Status (RFC 9209 section 2.3) of a response.
    """

    def __init__(self, detail: str, proxy_error: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.proxy_error = proxy_error


class MalformedMessageError(MessageError):
    """The message is not what HTTP/1.1 allows, or can be read in two ways."""

    def __init__(self, detail: str, proxy_error: str = "http_protocol_error") -> None:
        super().__init__(detail, proxy_error)


class IncompleteMessageError(MalformedMessageError):
    """The connection was closed after the message's first byte and before its end."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "http_response_incomplete")


class MessageTooLargeError(MessageError):
    """The head or the trailer section is over its bounds. Reading stopped there."""


class NoMessageError(MessageError):
    """The connection was closed before the first byte of the response."""

    def __init__(self) -> None:
        super().__init__("the connection was closed before a byte of the response", "connection_terminated")
