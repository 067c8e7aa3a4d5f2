"""Query parameters: types, defaults, undeclared and malformed ones."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.config.schema.sections import QueryParam
from umbel.core.errors import RequestError
from umbel.gateway.request.query import QueryRules


def value(type_: str, raw: bytes, **options: Any) -> Any:
    rules = QueryRules({"x": QueryParam.model_validate({"type": type_, **options})})
    return rules.values(rules.read(raw))["x"]


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
        ("int", b"x=1099511627776000000", 1099511627776000000),
        ("int", b"x=9223372036854775807", 2**63 - 1),
        ("int", b"x=-9223372036854775808", -(2**63)),
        ("int", b"x=%2B0009223372036854775807", 2**63 - 1),
        ("int", b"x=-" + b"0" * 5000 + b"7", -7),
        ("int", b"x=" + b"0" * 5000, 0),
        ("int", b"x=-0", 0),
        ("float", b"x=1.5e3", 1500.0),
        ("float", b"x=.5", 0.5),
        ("bool", b"x=TRUE", True),
        ("bool", b"x=0", False),
    ],
)
def test_a_parameter_is_parsed_to_its_declared_type(type_: str, raw: bytes, expected: Any) -> None:
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
        ("int", b"x=9223372036854775808"),
        ("int", b"x=-9223372036854775809"),
        ("int", b"x=00018446744073709551615"),
        ("int", b"x=%2B"),
        ("int", b"x=%2B-1"),
        ("int", b"x=%ff"),
        ("str", b"x=caf%E9"),
        ("str", b"x=%ED%A0%80"),
        ("float", b"x=nan"),
        ("float", b"x=inf"),
        ("float", b"x=1e999"),
        ("float", b"x=1e"),
        ("bool", b"x=yes"),
        ("bool", b"x"),
    ],
)
def test_a_malformed_parameter_is_a_400_with_its_name_and_not_its_value(type_: str, raw: bytes) -> None:
    with pytest.raises(RequestError, match='"x"') as refused:
        value(type_, raw)
    assert refused.value.status == 400
    assert "nan" not in refused.value.detail


def test_a_missing_parameter_has_its_default_or_is_a_400_if_required() -> None:
    assert value("int", b"y=1", default=20) == 20
    with pytest.raises(RequestError, match='"x" is missing'):
        value("int", b"y=1", required=True)


@pytest.mark.parametrize(
    ("type_", "split", "raw", "expected"),
    [
        ("list[str]", None, b"x=a&y=1&x=b%2Cc&x=", ["a", "b,c", ""]),
        ("list[int]", None, b"x=1&x=-2", [1, -2]),
        ("list[int]", None, b"x=7", [7]),
        ("list[float]", None, b"x=1&x=.5", [1.0, 0.5]),
        ("list[bool]", None, b"x=true&x=0", [True, False]),
        ("list[str]", None, b"", []),
        ("list[int]", ",", b"x=1,2&x=3%2C4", [1, 2, 3, 4]),
        ("list[int]", ",", b"x=", []),
        ("list[str]", ",", b"x=,a,,b", ["", "a", "", "b"]),
        ("list[str]", " ", b"x=a+b", ["a", "b"]),
        ("list[str]", "&", b"x=a%26b", ["a", "b"]),
    ],
)
def test_a_list_has_an_item_for_each_value_and_each_part_of_a_split_value(
    type_: str, split: str | None, raw: bytes, expected: list[Any]
) -> None:
    assert value(type_, raw, split=split) == expected


@pytest.mark.parametrize(
    ("type_", "split", "raw"),
    [
        ("list[int]", None, b"x=1&x="),
        ("list[int]", None, b"x=1,2"),
        ("list[int]", ",", b"x=1,,2"),
        ("list[bool]", None, b"x=true&x=nan"),
    ],
)
def test_a_malformed_item_of_a_list_is_a_400_with_the_name_of_the_parameter(
    type_: str, split: str | None, raw: bytes
) -> None:
    with pytest.raises(RequestError, match='Each value of the query parameter "x" must be') as refused:
        value(type_, raw, split=split)
    assert refused.value.status == 400
    assert "nan" not in refused.value.detail


def test_a_missing_list_is_its_default_in_a_new_list_or_a_400_if_required() -> None:
    rules = QueryRules({"x": QueryParam.model_validate({"type": "list[int]", "default": [1, 2]})})
    first = rules.values(())["x"]
    assert first == [1, 2]
    assert isinstance(first, list)
    assert rules.values(())["x"] is not first
    with pytest.raises(RequestError, match='"x" is missing'):
        value("list[str]", b"", required=True)


def test_an_int_out_of_range_is_a_400_that_names_the_range() -> None:
    with pytest.raises(RequestError) as refused:
        value("int", b"x=9223372036854775808")
    said = 'The query parameter "x" must be a whole number from -9223372036854775808 to 9223372036854775807.'
    assert refused.value.detail == said


ODD = [
    *(b"utm=caf%E9", b"utm=%ff%fe", b"%ff=1", b"utm=%zz", b"%", b"utm=%", b"=", b"&&", b"=%ff", b"x%ff=1", b"+%E9"),
    *(b"y=" + b"%E9" * 3000, b"%E9" * 3000, b"&".join([b"a=%ff"] * 5000), b"x" * 9000 + b"%ff=%ff"),
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_undeclared_parameter_of_any_bytes_is_ignored(odd: bytes) -> None:
    assert value("int", odd + b"&x=7&" + odd) == 7


@pytest.mark.parametrize("type_", ["str", "int", "float", "bool"])
def test_a_declared_parameter_that_is_not_utf_8_is_a_400_with_its_name(type_: str) -> None:
    with pytest.raises(RequestError, match='"x" is not percent-encoded UTF-8'):
        value(type_, b"y=%ff&%78=%E9")


def test_a_percent_encoded_name_of_a_parameter_is_recognised() -> None:
    assert value("str", b"%78=%C3%A9") == "é"
    rules = QueryRules({"a b": QueryParam(), "é": QueryParam()})
    assert rules.values(rules.read(b"a+b=1&%c3%a9=2&a%20b=3")) == {"a b": "3", "é": "2"}


def test_only_declared_parameters_are_read_in_order() -> None:
    rules = QueryRules({"x": QueryParam(), "y": QueryParam()})
    assert rules.read(b"y=%20&z=%ff&x=1&y=") == (("y", " "), ("x", "1"), ("y", ""))


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))), max_size=6))
def test_a_query_is_decoded_as_by_the_standard_library(pairs: list[tuple[str, str]]) -> None:
    raw = urlencode(pairs)
    names = [name for name, _ in pairs[::2]]
    expected = [pair for pair in parse_qsl(raw, keep_blank_values=True) if pair[0] in names]
    assert list(QueryRules({name: QueryParam() for name in names}).read(raw.encode())) == expected
