"""The addresses of both ends of a connection.

Made once per connection, for the ASGI scope and for records. Holds no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """The ends of a connection. ``client`` is None for a Unix socket, whose ``server`` is its path and None."""

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    secure: bool = False
    """Whether it is TLS."""
    accepted_at: float | None = None
    """When the connection was accepted (trio's clock): the first head is waited for from then on. None: unknown."""
    client_certificate: bytes | None = None
    """The certificate (DER) that the client has shown and the server has verified."""

    @property
    def address(self) -> str:
        """The client's address for records; empty for a Unix socket."""
        return self.client[0] if self.client is not None else ""
