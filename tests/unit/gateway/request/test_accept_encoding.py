"""Negotiation of the content coding by Accept-Encoding: weights, ``identity``, ``*``, and malformed values."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.http.compressors import Coding
from umbel.gateway.request.accept_encoding import CHARS_MAX, read_accept_encoding

ALL: tuple[Coding, ...] = ("zstd", "br", "gzip")

TABLE: dict[str | None, tuple[tuple[str, ...], bool]] = {
    # Accept-Encoding: the accepted codings, the best first, and whether an uncoded response is accepted.
    None: ((), True),
    "": ((), True),
    " , ,": ((), True),
    "gzip": (("gzip",), True),
    "x-gzip": (("gzip",), True),
    "GZip": (("gzip",), True),
    "gzip, deflate, br, zstd": (("zstd", "br", "gzip"), True),
    "deflate": ((), True),
    "gzip;q=1.0, br;q=0.9": (("gzip", "br"), True),
    "gzip ; q=0.5 ,br; Q=0.501": (("br", "gzip"), True),
    "gzip;q=0": ((), True),
    "gzip;q=0.000, br": (("br",), True),
    "*": (("zstd", "br", "gzip"), True),
    "*;q=0": ((), False),
    "gzip, *;q=0": (("gzip",), False),
    "*, zstd;q=0": (("br", "gzip"), True),
    "br;q=0.2, *;q=0.4": (("zstd", "gzip", "br"), True),
    "identity": ((), True),
    "identity;q=0": ((), False),
    "identity;q=0, gzip": (("gzip",), False),
    "identity;q=0, *": (("zstd", "br", "gzip"), False),
    "identity;q=0.1, *;q=0": ((), True),
    "gzip, identity": (("gzip",), True),
    "gzip;q=0.5, identity": ((), True),
    "gzip;q=0.5, br;q=0.8, identity;q=0.7": (("br",), True),
    "gzip, gzip;q=0": ((), True),
    "gzip;q=0, gzip": (("gzip",), True),
    # Malformed members are ignored.
    "gzip;q=1.1, br": (("br",), True),
    "gzip;q=-1": ((), True),
    "gzip;q=0.1234": ((), True),
    "gzip;q=": ((), True),
    "gzip;q=nan": ((), True),
    "gzip;level=9": ((), True),
    "gzip;q=1;q=0": ((), True),
    "gz ip": ((), True),
    "identity;q=x, gzip": (("gzip",), True),
    "gzip;q=0\u0660": ((), True),
    "gzip" + CHARS_MAX * " ": ((), True),
}


@pytest.mark.parametrize(("value", "expected"), TABLE.items(), ids=map(repr, TABLE))
def test_a_value_gives_the_accepted_codings(value: str | None, expected: tuple[tuple[str, ...], bool]) -> None:
    assert read_accept_encoding(value, ALL) == expected


def test_the_order_of_the_server_decides_among_equal_weights() -> None:
    for offered in permutations(ALL):
        assert read_accept_encoding("gzip, br, zstd", offered).codings == offered
        assert read_accept_encoding("gzip;q=0.3, *;q=0.3", offered).codings == offered


NAMES = st.sampled_from(["gzip", "x-gzip", "br", "zstd", "identity", "*", "deflate", "BR"])
WEIGHTS = st.one_of(st.none(), st.sampled_from(["0", "0.0", "0.001", "0.5", "1", "1.000", "2", "a"]))


@given(st.lists(st.tuples(NAMES, WEIGHTS), max_size=8))
def test_the_result_follows_the_rules_of_rfc_9110(members: list[tuple[str, str | None]]) -> None:
    value = ", ".join(name if weight is None else f"{name};q={weight}" for name, weight in members)
    accepted = read_accept_encoding(value, ALL)

    weights: dict[str, float] = {}
    for name, weight in members:
        if weight is None or re.fullmatch(r"0(\.\d{1,3})?|1(\.0{1,3})?", weight):
            weights[{"x-gzip": "gzip"}.get(name.lower(), name.lower())] = 1.0 if weight is None else float(weight)

    def weight_of(coding: str) -> float:
        return weights.get(coding, weights.get("*", 0.0))

    wanted = [coding for coding in ALL if weight_of(coding) > 0 and weight_of(coding) >= weights.get("identity", 0.0)]
    assert set(accepted.codings) == set(wanted)
    ranks = [(-weight_of(coding), ALL.index(coding)) for coding in accepted.codings]
    assert ranks == sorted(ranks)
    assert accepted.identity == (weights.get("identity", weights.get("*", 1.0)) > 0)


@given(st.text(alphabet="gzipbr*;q=01., \tx\x00é", max_size=60))
def test_any_text_is_read_without_an_error(value: str) -> None:
    assert set(read_accept_encoding(value, ALL).codings) <= set(ALL)
