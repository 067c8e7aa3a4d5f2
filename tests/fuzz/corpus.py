"""The stored corpus: one file per input, as it goes over the wire. Every finding becomes a file here."""

from __future__ import annotations

import hashlib
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "corpus"
PROTOCOLS = ("http1", "http2")


def stored(protocol: str) -> dict[str, bytes]:
    """The inputs of a protocol by name, in the order of their names."""
    return {path.stem: path.read_bytes() for path in sorted((CORPUS / protocol).glob("*.bin"))}


def keep(protocol: str, data: bytes) -> Path:
    """Store a finding; the same one twice is one file."""
    path = CORPUS / protocol / f"found-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path
