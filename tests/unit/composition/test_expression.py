"""JMESPath expressions: what they read, and our two functions."""

from __future__ import annotations

import pytest

from umbel.composition.expression import ExpressionError, compile_expression


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("orders[*].sku", {"orders"}),
        ("{name: profile.name, orders: orders}", {"profile", "orders"}),
        ("orders[?sku == limit].sku", {"orders"}),
        ("a | b", {"a"}),
        ("a.b.c", {"a"}),
        ("sort_by(a, &b)", {"a"}),
        ("a || b && !c", {"a", "b", "c"}),
        ("length(a) > `3`", {"a"}),
        ("[a, b.c]", {"a", "b"}),
        ("a[].b[]", {"a"}),
        ("a.*.b", {"a"}),
        ("a[1:2]", {"a"}),
        ("'text'", set()),
        ("zip(a, b)[*][0]", {"a", "b"}),
        ("lookup(a, item)", {"a", "item"}),
    ],
)
def test_the_names_that_an_expression_needs(text: str, names: set[str]) -> None:
    assert {name.root for name in compile_expression(text, ()).names} == names


@pytest.mark.parametrize("text", ["@", "*", "[*]", "[0]", "[]", "a || @", "keys(@)", "[?a]"])
def test_reading_the_whole_context_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole context"):
        compile_expression(text, ())


@pytest.mark.parametrize(("text", "reason"), [("a[", "not a JMESPath"), ("", "not a JMESPath"), ("nope(a)", "nope")])
def test_what_is_no_expression_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_expression(text, ())


def test_zip_joins_rows_that_a_projection_would_shift() -> None:
    assert compile_expression("zip(a, b)", ()).evaluate({"a": [1, None], "b": [2, 3]}) == [[1, 2], [None, 3]]
    assert compile_expression("zip(a, b)", ()).evaluate({"a": None, "b": [2]}) == []


def test_lookup_finds_by_the_json_of_a_key() -> None:
    lookup = compile_expression("lookup(a, k)", ())
    assert lookup.evaluate({"a": {"1": "x"}, "k": 1}) == "x"
    assert lookup.evaluate({"a": {"true": "x"}, "k": True}) == "x"
    assert lookup.evaluate({"a": None, "k": 1}) is None


@pytest.mark.parametrize(
    ("text", "context"),
    [("sort(a)", {"a": {}}), ("max_by(a, &b)", {"a": [{"b": 1}, {"b": "x"}]}), ("abs(a)", {"a": "x"})],
)
def test_whatever_goes_wrong_inside_is_one_exception(text: str, context: dict[str, object]) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text, ("here",)).evaluate(context)


def test_a_text_that_is_joined_is_bounded_by_its_parts_multiplied() -> None:
    join = compile_expression("join(a, b)", ())
    assert join.evaluate({"a": ", ", "b": ["x", "y"]}) == "x, y"
    assert join.evaluate({"a": "x" * 10, "b": []}) == ""
    with pytest.raises(ExpressionError, match="more than 1048576 characters"):
        join.evaluate({"a": "x" * 500_000, "b": [""] * 200_000})


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("1", 1), ("-1.5", -1.5), ("1e3", 1000.0), (2, 2), (2.5, 2.5)),
        *((text, None) for text in ("nan", "inf", "-Infinity", "1e999", "1_0", " 1", "1 ", "+1", "01", "", "٣", "0x1")),
        *((value, None) for value in (None, True, [], {}, "9" * 5000)),
    ],
)
def test_to_number_takes_the_numbers_of_json_alone(value: object, number: object) -> None:
    assert compile_expression("to_number(a)", ()).evaluate({"a": value}) == number
