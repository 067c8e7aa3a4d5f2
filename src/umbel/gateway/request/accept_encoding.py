"""Negotiation of the content coding of a response by Accept-Encoding (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ...core.http.compressors import Coding

CHARS_MAX = 1024
"""Maximum characters of Accept-Encoding. A longer one is ignored: the response is not compressed."""

_WEIGHT = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_IDENTITY = "identity"
_ANY = "*"


class Accepted(NamedTuple):
    """The content codings that a client accepts, among those of the server."""

    codings: tuple[Coding, ...] = ()
    """The accepted codings that the client does not like less than an uncoded response, the best first."""
    identity: bool = True
    """Whether the client accepts an uncoded response."""


def read_accept_encoding(value: str | None, offered: Sequence[Coding]) -> Accepted:
    """Choose among the codings ``offered`` by the server, which are in the order of its preference.

    The client's weights decide; the server's order decides among equal weights. ``*`` stands for each coding that is
    not named. Of a coding that is named twice the last weight counts. A member with a malformed weight is ignored.
    Without Accept-Encoding, or if it is empty or too long, no coding is accepted. Takes linear time.
    """
    if not value or len(value) > CHARS_MAX:
        return Accepted()
    weights: dict[str, float] = {}
    for member in value.split(","):
        name, has_weight, parameter = member.partition(";")
        weight = 1.0
        if has_weight:
            if (found := _WEIGHT.fullmatch(parameter.strip(" \t"))) is None:
                continue
            weight = float(found[1])
        name = name.strip(" \t").lower()
        weights["gzip" if name == "x-gzip" else name] = weight
    others = weights.get(_ANY)
    liked = weights.get(_IDENTITY, 0.0)
    ranked = [(weights.get(coding, others or 0.0), coding) for coding in offered]
    # sorted() is stable: among equal weights the order of ``offered`` stays.
    best = sorted((each for each in ranked if each[0] > 0 and each[0] >= liked), key=lambda each: -each[0])
    refused = weights[_IDENTITY] == 0 if _IDENTITY in weights else others == 0
    return Accepted(tuple(coding for _, coding in best), not refused)
