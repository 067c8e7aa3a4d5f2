"""Interface of an HTTP/1.1 connection towards its requests: bytes in both directions, and persistence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...core.inbound import AnyHead
    from ...net.stream import PlainStream
    from ..peer import Peer
    from ..response.error_response import ErrorResponse
    from ..state import ServerState


class RequestTransport(Protocol):
    """A connection, as its requests see it."""

    server: ServerState
    stream: PlainStream
    peer: Peer
    scheme: str
    buffer: bytes
    """Bytes that were read and not used yet."""
    half_closed: bool
    """Whether the client has ended its sending and still waits for responses."""
    lingers: bool
    """Whether the client may be sending while the server closes the connection."""

    def take_buffer(self) -> bytes:
        """Take ``buffer``, and leave it empty."""
        ...

    def receive_now(self) -> bytes | None:
        """Receive without a wait: b"" at the end of the stream, None if no byte is there."""
        ...

    async def receive_ready(self, limit: int) -> bytes | None:
        """Receive what has come, without a wait for the client: as ``receive_now``. A cancel loses no byte."""
        ...

    async def receive(self, limit: int = ...) -> bytes:
        """Wait for the next bytes, ``limit`` at most; b"" at the end of the stream. A cancel loses no byte."""
        ...

    def send_now(self, data: bytes) -> bool:
        """Send what the socket takes, and keep the rest for ``send_rest``. Return whether it took all."""
        ...

    def send_last(self, data: bytes) -> bool:
        """As ``send_now``, for the end of a response after which the connection waits for the next request."""
        ...

    async def send_rest(self) -> None:
        """Wait, with a timeout, until the socket has taken all kept bytes. Cancelled, they stay kept, in order."""
        ...

    async def refuse(self, error_response: ErrorResponse, request_id: str, head: AnyHead) -> int:
        """Send an error response to the request of ``head``. Return the bytes of its body."""
        ...

    def keeps_alive(self) -> bool:
        """Whether the server lets the connection carry another request."""
        ...

    def cancel_apart(self, reason: str) -> None:
        """Cancel the foreign code that serves the request, and with it the connection."""
        ...

    def displace(self) -> None:
        """Close the connection at once, and send nothing more."""
        ...
