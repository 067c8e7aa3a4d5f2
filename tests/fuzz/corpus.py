"""The stored corpus: one file per input, with the bytes that a client sends. Every finding becomes a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"
PROTOCOLS = ("http1", "http2")


def stored(protocol: str) -> dict[str, bytes]:
    """Return the inputs of a protocol by name, in the order of names."""
    return {path.stem: path.read_bytes() for path in sorted((CORPUS / protocol).glob("*.bin"))}


def keep(protocol: str, data: bytes) -> Path:
    """Store an input and return its path; equal inputs share a file."""
    path = CORPUS / protocol / f"found-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path
