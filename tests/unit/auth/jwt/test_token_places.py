"""``auth/jwt/token_places.py``: where a token is found, and which requests have more than one."""

from __future__ import annotations

import pytest

from umbel.auth.authenticator import Place, Presented, Refusal
from umbel.auth.jwt.token_places import HEADER, FoundToken, find_token, place_of


def header(value: str | None) -> FoundToken | None:
    return find_token(Presented({} if value is None else {"authorization": value}, {}, b""), (HEADER,))


def query(raw: bytes) -> str | Refusal | None:
    found = find_token(Presented({}, {}, raw), (place_of("query:access_token"),))
    return None if found is None else found.token


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c", "Bearer a.b.c "])
def test_the_scheme_is_compared_without_case(value: str) -> None:
    assert header(value) == FoundToken(HEADER, "a.b.c")


@pytest.mark.parametrize("value", [None, "", "Basic YTpi", "Bearertoken", "DPoP a.b.c", 'Digest a="b", c="d"', "a.b.c"])
def test_another_scheme_is_no_token(value: str | None) -> None:
    assert header(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a, Bearer b",
        "Bearer a,b",
        "Bearer a, Basic b",
        "Basic YTpi, Bearer a",
        "Bearer a\tb",
    ],
)
def test_no_token_or_more_than_one_is_an_invalid_request(value: str) -> None:
    found = header(value)

    assert found is not None
    assert isinstance(found.token, Refusal)
    assert found.token.error == "invalid_request"


@pytest.mark.parametrize(
    ("raw", "token"),
    [
        (b"access_token=a.b.c", "a.b.c"),
        (b"x=1&access_token=a.b.c&y", "a.b.c"),
        (b"access%5Ftoken=a%2Eb.c", "a.b.c"),
        (b"access_token=a=b", "a=b"),
        (b"access_token=%ff", "\xff"),
        (b"access_token=", None),
        (b"access_token", None),
        (b"Access_token=a", None),
        (b"", None),
        (b"&&=&", None),
    ],
)
def test_the_parameter_is_percent_decoded(raw: bytes, token: str | None) -> None:
    assert (query(raw) or None) == token


@pytest.mark.parametrize(
    "raw", [b"access_token=a&access_token=a", b"access_token=a&access%5ftoken=", b"access_token&access_token"]
)
def test_a_parameter_that_occurs_twice_is_an_invalid_request(raw: bytes) -> None:
    found = query(raw)

    assert isinstance(found, Refusal)
    assert found.error == "invalid_request"


def test_the_first_place_that_has_a_token_counts() -> None:
    places = tuple(map(place_of, ("cookie:session", "header", "query:t")))
    presented = Presented({"authorization": "Bearer h"}, {"session": "c"}, b"t=q")

    assert find_token(presented, places) == FoundToken(Place("cookie", "session"), "c")
    assert find_token(Presented(presented.fields, {"session": ""}, b"t=q"), places) == FoundToken(HEADER, "h")
    assert find_token(Presented({}, {}, b"t=q"), places) == FoundToken(Place("query", "t"), "q")
    assert find_token(Presented({"authorization": "Basic x"}, {}, b"t=q"), places) is not None
    assert find_token(Presented({}, {}, b""), places) is None
