"""The bound on the steps of an expression, and the fault of an evaluation that exceeds it."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.composition.text.expression import ExpressionError, compile_expression
from umbel.composition.text.interpreter import MAX_STEPS

MANY = 190_000
VALUES: dict[str, Any] = {
    "numbers": [1] * MANY,
    "objects": [{"b": 1}] * (MANY // 2),
    "empty": [{}] * MANY,
    "texts": ["a"] * MANY,
    "lists": [[1]] * (MANY // 2),
    "glue": [{"g": "x" * 1000, "t": [""] * 900}] * 300,
}
DEAR = [
    "body.numbers[?@ > `0`]",
    "body.numbers[*].{x: @, y: @}",
    "body.numbers[*].a.b.c",
    "body.numbers[*].to_string(@)",
    "body.numbers[] | [] | [] | []",
    "map(&[@, @], body.numbers)",
    "sort_by(body.objects, &not_null(b, c))",
    "max_by(body.objects, &b.c.d || b)",
    "body.objects[*].[b, b, b]",
    "body.empty[*].merge(@, @)",
    "body.empty[*].keys(@)[]",
    "body.texts[?contains(@, 'a')]",
    "body.lists[*][*].[@, @]",
    "body.glue[*].join(g, t)",
]


@pytest.mark.parametrize("text", DEAR)
def test_an_evaluation_fails_when_it_exceeds_its_steps(text: str) -> None:
    with pytest.raises(ExpressionError, match=f"more than {MAX_STEPS} steps") as caught:
        compile_expression(text, ()).evaluate({"body": VALUES})
    assert [name.root for name in caught.value.fault.names] == ["body"]
    assert "too many values" in caught.value.fault.reason


@pytest.mark.parametrize("text", DEAR)
def test_usual_lists_need_far_fewer_steps_than_the_bound(text: str) -> None:
    few = {name: values[: 4 if name == "glue" else 10_000] for name, values in VALUES.items()}
    assert compile_expression(text, ()).evaluate({"body": few}) is not None


def test_functions_accept_long_lists() -> None:
    assert compile_expression("[sum(body.numbers), length(body.texts)]", ()).evaluate({"body": VALUES}) == [MANY, MANY]


@pytest.mark.parametrize(("body", "call", "owner"), [(MANY, 10, "body"), (10, MANY, "call")])
def test_the_largest_value_is_at_fault_if_an_evaluation_exceeds_its_steps(body: int, call: int, owner: str) -> None:
    context = {"body": {"a": [1] * body, "b": "," * 200}, "call": [1] * call}
    with pytest.raises(ExpressionError) as caught:
        compile_expression("{a: body.a[?@ > `0`], b: body.b, c: call[?@ > `0`]}", ()).evaluate(context)
    assert [name.root for name in caught.value.fault.names] == [owner]


def test_a_wrong_value_is_at_fault_beside_a_long_list() -> None:
    context = {"body": {"a": [1] * (MANY // 2)}, "call": [1e308, 1e308]}
    with pytest.raises(ExpressionError) as caught:
        compile_expression("{x: {y: {z: [body.a[*].b, sum(call)]}}}", ()).evaluate(context)
    assert [name.root for name in caught.value.fault.names] == ["call"]


@pytest.mark.parametrize("text", ["body.a[?@ > `0`] || call", "body.a[*].[@, @] || call"])
def test_the_origin_of_a_long_list_is_found_within_the_bound(text: str) -> None:
    numbers = [1] * 40_000
    expression = compile_expression(text, ())
    value = expression.evaluate({"body": {"a": numbers}, "call": [1]})
    assert [name.root for name in expression.origins({"body": {"a": numbers}, "call": [1]}, value)] == ["body"]


@pytest.mark.parametrize("text", ["a < b", "a >= b", "b < a", "[a][?@ > 'x']", "c < b", "d < a", "e > b"])
def test_an_order_between_different_types_is_null(text: str) -> None:
    context = {"a": 5, "b": "text", "c": None, "d": True, "e": [1]}
    assert not compile_expression(text, ()).evaluate(context)


def test_numbers_and_texts_are_ordered_among_themselves() -> None:
    context = {"a": 5, "b": "text"}
    texts = ("a > `4.5`", "a <= `5`", "b > 'a'", "a != b", "b == 'text'", "a == `5`")
    assert [compile_expression(text, ()).evaluate(context) for text in texts] == [True] * 6


def test_a_text_contains_no_value_that_is_no_text() -> None:
    searches = ["ex", "z", 5, None, True, [], {}]
    found = [compile_expression("contains(a, b)", ()).evaluate({"a": "text", "b": search}) for search in searches]
    assert found == [True, False, False, False, False, False, False]
    assert compile_expression("contains(a, b)", ()).evaluate({"a": [1, None], "b": None}) is True


@pytest.mark.parametrize(
    ("subject", "search", "found"),
    [([1], True, False), ([True], 1, False), ([0], False, False), ([1.0], 1, True), ([True], True, True)],
)
def test_a_list_of_numbers_contains_no_boolean(subject: list[object], search: object, found: bool) -> None:
    assert compile_expression("contains(a, b)", ()).evaluate({"a": subject, "b": search}) is found


@pytest.mark.parametrize("numbers", [[int("9" * 4300)] * 2, [1e308, 1e308], [int("9" * 400), 1.5]])
@pytest.mark.parametrize("function", ["sum", "avg"])
def test_a_sum_beyond_the_range_of_json_is_the_fault_of_its_numbers(function: str, numbers: list[float]) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(f"{function}(body.xs)", ()).evaluate({"body": {"xs": numbers}})
    assert [name.root for name in caught.value.fault.names] == ["body"]
    assert compile_expression("sum(body.xs)", ()).evaluate({"body": {"xs": [int("9" * 4299), 1]}}) == 10**4299
