"""Tokens in a query: the query without them."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote_to_bytes


def without_parameters(query: bytes, names: Collection[bytes]) -> bytes:
    """The raw query without the parameters of these names; the others stay byte for byte."""
    if not query:
        return query
    pairs = query.split(b"&")
    kept = [pair for pair in pairs if _name(pair) not in names]
    return query if len(kept) == len(pairs) else b"&".join(kept)


def _name(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))
