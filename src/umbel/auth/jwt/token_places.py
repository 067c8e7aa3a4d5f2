"""Where the token of a request is: RFC 6750 section 2, and cookies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..authenticator import Place, Presented, Refusal

HEADER = Place("header", "authorization")
_SCHEME = "bearer"


class FoundToken(NamedTuple):
    """The token of a request, or why it cannot be one token."""

    place: Place
    token: str | Refusal


def place_of(text: str) -> Place:
    """The place that a value of the key ``from`` means: header, cookie:NAME or query:NAME."""
    kind, _, name = text.partition(":")
    return HEADER if kind == "header" else Place(kind, name)


def find_token(presented: Presented, places: Sequence[Place]) -> FoundToken | None:
    """The token in the first of the places that has one; None: no place has one. Takes linear time."""
    for place in places:
        if place.kind == "header":
            found = _in_header(presented.fields.get(place.name, ""))
        elif place.kind == "cookie":
            found = presented.cookies.get(place.name)
        else:
            found = _in_query(presented.query, place.name)
        if found:
            return FoundToken(place, found)
    return None


def _in_header(value: str) -> str | Refusal | None:
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != _SCHEME:
        # Repeated fields come joined, and servers behind may take either one.
        if any(part.lower().startswith(f"{_SCHEME} ") for part in value.split(", ")[1:]):
            return Refusal("The request has several Authorization fields.", error="invalid_request")
        return None
    token = rest.strip(" \t")
    if not token:
        return Refusal("The Authorization field has no token.", error="invalid_request")
    if "," in token:
        return Refusal("The request has several Authorization fields.", error="invalid_request")
    if " " in token or "\t" in token:
        return Refusal("The Authorization field has more than one token.", error="invalid_request")
    return token


def _in_query(query: bytes, name: str) -> str | Refusal | None:
    wanted = name.encode("ascii")
    values = []
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == wanted or (b"%" in key and unquote_to_bytes(key) == wanted):
            values.append(value)
    if len(values) > 1:
        return Refusal("The query has the parameter of the token more than once.", error="invalid_request")
    return unquote_to_bytes(values[0]).decode("latin-1") if values else None
