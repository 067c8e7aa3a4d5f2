"""What a connection turns out to speak, where it is not HTTP/1.1 requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Handoff:
    """HTTP/2 has the connection from here on: its client began with the preface."""

    received: bytes
    """All that has been read: the preface, and what came behind it."""
