"""The addresses of both ends of a connection, and its TLS facts, for the ASGI scope and for records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of one connection."""

    client: tuple[str, int] | None
    """The client's address and port; None on a Unix socket."""
    server: tuple[str, int | None] | None
    """The server's address and port; on a Unix socket its path and None."""
    secure: bool = False
    """Whether the connection uses TLS."""
    accepted_at: float | None = None
    """When the connection was accepted (trio's clock): the start of the first ``head_timeout``. None: unknown."""
    client_certificate: bytes | None = None
    """The client's verified certificate (DER); None without one."""

    @property
    def address(self) -> str:
        """The client's address without the port; empty on a Unix socket."""
        return self.client[0] if self.client is not None else ""
