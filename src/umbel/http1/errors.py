"""Errors of the HTTP/1.1 parsers, each with its name in RFC 9209 section 2.3."""

from __future__ import annotations

from ..core.errors import UmbelError


class MessageError(UmbelError):
    """The message cannot be read. Neither its parser nor its connection can be used any more.

    Args:
        detail: the reason, for records only, never for clients.
        proxy_error: the value of the ``error`` parameter of Proxy-Status (RFC 9209 section 2.3).
    """

    def __init__(self, detail: str, proxy_error: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.proxy_error = proxy_error


class MalformedMessageError(MessageError):
    """The message violates HTTP/1.1, or its framing is ambiguous."""

    def __init__(self, detail: str, proxy_error: str = "http_protocol_error") -> None:
        super().__init__(detail, proxy_error)


class IncompleteMessageError(MalformedMessageError):
    """The connection was closed after the message's first byte and before its end."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "http_response_incomplete")


class MessageTooLargeError(MessageError):
    """The head or the trailer section exceeds its limits."""


class NoMessageError(MessageError):
    """The connection was closed before the first byte of the response."""

    def __init__(self) -> None:
        super().__init__("the connection was closed before a byte of the response", "connection_terminated")
