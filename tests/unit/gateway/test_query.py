from __future__ import annotations

from typing import Any

import pytest

from umbel.config.schema import QueryParam
from umbel.errors import RequestError
from umbel.gateway.query import PARAMS_MAX, QueryRules, parse_query


def value(type_: str, raw: bytes, **options: Any) -> Any:
    rules = QueryRules({"x": QueryParam.model_validate({"type": type_, **options})})
    return rules.values(parse_query(raw))["x"]


@pytest.mark.parametrize(
    ("type_", "raw", "expected"),
    [
        ("str", b"x=a%20b+c", "a b c"),
        ("str", b"x=", ""),
        ("str", b"x", ""),
        ("str", b"", None),
        ("str", b"x=1&x=2", "2"),
        ("int", b"x=-42", -42),
        ("int", b"x=%2B7", 7),
        ("float", b"x=1.5e3", 1500.0),
        ("float", b"x=.5", 0.5),
        ("bool", b"x=TRUE", True),
        ("bool", b"x=0", False),
    ],
)
def test_a_parameter_becomes_its_type(type_: str, raw: bytes, expected: Any) -> None:
    assert value(type_, raw) == expected


@pytest.mark.parametrize(
    ("type_", "raw"),
    [
        ("int", b"x="),
        ("int", b"x=1_000"),
        ("int", b"x=%201"),
        ("int", b"x=1.0"),
        ("int", b"x=%D9%A3"),
        ("int", b"x=" + b"9" * 5000),
        ("float", b"x=nan"),
        ("float", b"x=inf"),
        ("float", b"x=1e999"),
        ("float", b"x=1e"),
        ("bool", b"x=yes"),
        ("bool", b"x"),
    ],
)
def test_one_that_does_not_parse_is_a_400_that_names_it_and_not_its_value(type_: str, raw: bytes) -> None:
    with pytest.raises(RequestError, match='"x"') as refused:
        value(type_, raw)
    assert refused.value.status == 400
    assert "nan" not in refused.value.detail


def test_a_missing_one_has_its_default_or_is_refused_if_required() -> None:
    assert value("int", b"y=1", default=20) == 20
    with pytest.raises(RequestError, match='"x" is missing'):
        value("int", b"y=1", required=True)


@pytest.mark.parametrize("raw", [b"x=%ff", b"x=\xff", b"&".join([b"a=1"] * (PARAMS_MAX + 1))])
def test_a_query_that_is_no_utf8_or_too_long_is_a_400(raw: bytes) -> None:
    with pytest.raises(RequestError):
        parse_query(raw)
