"""Tokens in a query: their names, and the query without them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from ...config.schema.access.credential_names import credential_names

if TYPE_CHECKING:
    from ...config.schema.sections import Config


def token_parameters(config: Config) -> frozenset[bytes]:
    """The query parameters that are tokens of any section ``[auth.NAME]``.

    They are hidden on all routes: a client may send its token to a route that does not ask for it.
    """
    names = (name for section in config.auth.values() for name in credential_names(section, "query"))
    return frozenset(name.encode("ascii") for name in names)


def without_parameters(query: bytes, names: Collection[bytes]) -> bytes:
    """The raw query without the parameters of these names; the others stay byte for byte."""
    if not query:
        return query
    pairs = query.split(b"&")
    kept = [pair for pair in pairs if parameter_name(pair) not in names]
    return query if len(kept) == len(pairs) else b"&".join(kept)


def parameter_name(pair: bytes) -> bytes:
    """The decoded name of a parameter of a raw query."""
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))
