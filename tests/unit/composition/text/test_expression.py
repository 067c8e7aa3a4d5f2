"""JMESPath expressions: the names that they read, their functions, and messages about mistakes."""

from __future__ import annotations

import msgspec
import pytest

from umbel.composition.text.expression import ExpressionError, compile_expression, compile_source
from umbel.composition.text.functions import FUNCTIONS
from umbel.config.schema.sections import Constant


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
def test_an_expression_lists_the_names_that_it_reads(text: str, names: set[str]) -> None:
    assert {name.root for name in compile_expression(text, ()).names} == names


@pytest.mark.parametrize("text", ["@", "*", "[*]", "[0]", "[]", "a || @", "keys(@)", "[?a]"])
def test_reading_the_whole_context_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole context"):
        compile_expression(text, ())


@pytest.mark.parametrize(("text", "reason"), [("a[", "not a JMESPath"), ("", "not a JMESPath"), ("nope(a)", "nope")])
def test_an_invalid_expression_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_expression(text, ())


def test_zip_pairs_items_that_a_projection_would_shift() -> None:
    assert compile_expression("zip(a, b)", ()).evaluate({"a": [1, None], "b": [2, 3]}) == [[1, 2], [None, 3]]
    assert compile_expression("zip(a, b)", ()).evaluate({"a": None, "b": [2]}) == []


def test_lookup_compares_keys_by_their_json() -> None:
    lookup = compile_expression("lookup(a, k)", ())
    assert lookup.evaluate({"a": {"1": "x"}, "k": 1}) == "x"
    assert lookup.evaluate({"a": {"true": "x"}, "k": True}) == "x"
    assert lookup.evaluate({"a": None, "k": 1}) is None


ROWS = [{"k": 1}, {"k": "a"}]
WRONG = [None, True, 5, -1.5, "", "text", [], [1, "a"], [None], ["a", None], ROWS, [{}], {}, {"k": None}]


def _calls() -> list[str]:
    """Calls of all functions, with values and expressions as arguments."""
    texts: list[str] = []
    for name, known in FUNCTIONS.FUNCTION_TABLE.items():
        kinds = [argument["types"] for argument in known["signature"]]
        places = ["&k" if "expref" in kind else "ab"[place] for place, kind in enumerate(kinds)]
        texts.append(f"{name}({', '.join(places)})")
    return [*texts, "merge(a, b)", "merge(b, a, b)", "not_null(a, b)", "map(&length(@), a)", "sort_by(a, &abs(k))"]


@pytest.mark.parametrize("text", _calls())
def test_a_function_of_any_values_gives_a_json_value(text: str) -> None:
    expression = compile_expression(f"{{x: {text}}}", ())
    for left in WRONG:
        for right in WRONG:
            msgspec.json.encode(expression.evaluate({"a": left, "b": right}))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "length(a)",
            "keys(a)",
            "values(a)",
            "merge(o, a)",
            "merge(a, o)",
            "merge(o, l)",
            "merge(o, s)",
            "map(&x, a)",
        ),
        *("contains(a, 'x')", "sort(a)", "sort(m)", "sort_by(a, &k)", "sort_by(rows, &k)", "max_by(rows, &k)"),
        *("min_by(rows, &k)", "join(',', a)", "join(',', m)", "join(a, l)", "sum(m)", "avg(a)", "max(m)", "min(a)"),
        *("abs(s)", "ceil(a)", "floor(o)", "reverse(a)", "starts_with(a, 'x')", "ends_with(s, a)", "to_number(o)"),
        *("lookup(s, 'x')", "zip(s, l)", "length(keys(a))", "length(sort(m))", "abs(`true`)", "length(`5`)"),
    ],
)
def test_a_function_gives_null_for_values_that_it_does_not_accept(text: str) -> None:
    rows = [{"k": 1}, {"k": "x"}]
    context = {"a": None, "o": {"x": 1}, "l": [["x", 1]], "s": "", "m": [1, None], "rows": rows}
    assert compile_expression(f"[{text}, `1`]", ()).evaluate(context) == [None, 1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("map(&length(@), a)", [1, None, 2]),
        ("a[?length(@) > `1`]", ["xx"]),
        ("a[*].length(@)", [1, 2]),
        ("length(b) || `0`", 0),
        ("merge(o, not_null(b, `{}`))", {"k": 1}),
        ("to_array(length(b))", [None]),
        ("to_string(length(b))", "null"),
        ("type(length(b))", "null"),
        ("{n: length(b), o: o}", {"n": None, "o": {"k": 1}}),
    ],
)
def test_a_function_that_gives_null_does_not_affect_other_values(text: str, value: object) -> None:
    assert compile_expression(text, ()).evaluate({"a": ["x", 5, "xx"], "b": None, "o": {"k": 1}}) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sort_by(a, b)", "the second argument of sort_by\\(\\) is an expression: write & before it"),
        ("map(b, a)", "the first argument of map\\(\\) is an expression: write & before it"),
        ("length(&a)", "length\\(\\) takes a value there; leave the & out"),
        ("to_array(&a)", "leave the & out"),
        ("{a: &b}", "leave the & out"),
        ("a || &b", "leave the & out"),
        ("&a", "write the expression without it"),
        ("a[::0]", "step of a slice cannot be 0"),
        ("!a.b", "which is always null; write !\\(a.b\\)"),
        ("(" * 5000, "nested too deeply"),
        ("a" + " || a" * 5000, "nested too deeply"),
        (f"a[{'9' * 5000}]", "a number that is too long"),
    ],
)
def test_an_expression_that_can_never_give_a_value_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_expression(text, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1", 'it is a number; for the number write "`1`" (a JMESPath literal) or page = { value = 1 }'),
        ("-1.5", 'it is a number; for the number write "`-1.5`" (a JMESPath literal) or page = { value = -1.5 }'),
        ("", 'it is empty; for the text itself write "\'\'" or page = { value = "" }'),
        ("a b", 'for the text itself write "\'a b\'" or page = { value = "a b" }'),
        ("2024-01-01", 'for the text itself write "\'2024-01-01\'" or page = { value = "2024-01-01" }'),
        ("{a: ", "a name, a value or a closing bracket is missing at its end"),
        ("{a: }", '"}" at character 5 is not expected'),
        ("a == 'b", "the ' at character 6 is not closed; write another ' at its end"),
        ("a = 'b'", "= at character 3 is no operator; write == to compare"),
        ("a[?b > 1]", "the number at character 8 must stand between backticks: `1`"),
        ("a.b-c", '"-" at character 4 is not allowed; write a name with such a character in double quotes'),
    ],
)
def test_the_message_about_an_invalid_expression_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="not a JMESPath expression: ") as caught:
        compile_expression(text, ("routes", 0, "calls", "c", "params", "page"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith((":", "expression", ","))


def test_a_constant_evaluates_to_itself_and_reads_nothing() -> None:
    made = compile_source(Constant(value={"a": [1, "b"]}), ())
    assert (made.names, made.evaluate({})) == ((), {"a": [1, "b"]})


def test_the_text_that_join_makes_is_bounded() -> None:
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
def test_to_number_accepts_only_json_numbers(value: object, number: object) -> None:
    assert compile_expression("to_number(a)", ()).evaluate({"a": value}) == number
