"""Members of a table that an expression reads as lists."""

from __future__ import annotations

import pytest

from umbel.composition.text.expression import compile_expression
from umbel.composition.text.list_reads import members_read_as_lists


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("body.a[*]", ["a"]),
        ("body.a[*].x", ["a"]),
        ("body.a[]", ["a"]),
        ("body.a[0]", ["a"]),
        ("body.a[1:]", ["a"]),
        ("body.a[?x == 'y']", ["a"]),
        ("body.a | [0]", ["a"]),
        ("body.a[*] | [0]", ["a"]),
        ("(body.a || `[]`)[*]", ["a"]),
        ("join(',', body.a)", ["a"]),
        ("sort(body.a)[0]", ["a"]),
        ("zip(body.a, body.b)", ["a", "b"]),
        ("{x: body.a[*].x, y: body.b}", ["a"]),
        ("map(&body.b[0], body.a)", ["a"]),
        ("users[?body.a[0]]", []),
        ("users[*].body.a[0]", []),
        ("body.a", []),
        ("body.a.b[*]", []),
        ("length(body.a)", []),
        ("contains(body.a, body.b)", []),
        ("other.a[*]", []),
        ("'body.a[*]'", []),
    ],
)
def test_operands_of_brackets_and_arguments_of_list_functions_are_lists(text: str, members: list[str]) -> None:
    assert list(members_read_as_lists(compile_expression(text, ()).tree, "body")) == members


@pytest.mark.parametrize(
    ("text", "members"), [("body.a", ["a"]), ("body.a || body.b", ["a", "b"]), ("body.a.b", []), ("length(body.a)", [])]
)
def test_the_value_of_an_each_is_a_list(text: str, members: list[str]) -> None:
    assert list(members_read_as_lists(compile_expression(text, ()).tree, "body", as_list=True)) == members
