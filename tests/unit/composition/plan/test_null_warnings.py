"""Warnings about functions that are given a part that may be null."""

from __future__ import annotations

import pytest

from tests.support.composition.composing import config
from umbel.composition.plan.null_warnings import null_arguments
from umbel.composition.plan.warnings import warn
from umbel.composition.text.expression import compile_expression

PARTS = frozenset({"b", "c", "e[*]"})


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("merge(a, b)", {"merge b"}),
        ("merge(a, b, c)", {"merge b", "merge c"}),
        ("length(b)", {"length b"}),
        ("{a: a, n: length(b.rows)}", {"length b"}),
        ("length(b.rows[*].id)", {"length b"}),
        ("length(b[?id].x)", {"length b"}),
        ("length(b[0])", {"length b"}),
        ("b | length(@)", {"length b"}),
        ("b.x | keys(@)", {"keys b"}),
        ("map(&x, b)", {"map b"}),
        ("contains(b, 'x')", {"contains b"}),
        ("join(',', [a.name, b.name])", {"join b"}),
        ("sum([a.n, c.n])", {"sum c"}),
        ("length(keys(b))", {"keys b"}),
        ("sort(b || c)", {"sort b", "sort c"}),
        ("keys(a && b)", {"keys b"}),
        ("abs(to_number(b))", {"abs b"}),
        ("keys(lookup(b, 'x'))", {"keys b"}),
        ("length(not_null(b, c))", {"length b", "length c"}),
        # The function never gets a null.
        ("merge(a, not_null(b, `{}`))", set()),
        ("merge(a, b || `{}`)", set()),
        ("length(not_null(b, a))", set()),
        ("length(a)", set()),
        ("length(to_array(b))", set()),
        ("length(to_string(b))", set()),
        ("{b: b, c: c.x}", set()),
        ("[b, c] | length(@)", set()),
        ("length([a, b])", set()),
        ("type(b)", set()),
        ("zip(a, b)", set()),
        ("lookup(b, 'x')", set()),
        ("b[*].length(@)", set()),
        ("map(&length(b), a)", set()),
        ("a.b | length(@)", set()),
        ("length(a.b)", set()),
        ("b[?length(x) > `1`]", set()),
        # The null is within a list or an object that the expression makes.
        ("[a.x, b.x] | sum(@)", {"sum b"}),
        ("sum(values({x: a.x, y: b.x}))", {"sum b"}),
        ("sum(reverse([a.x, b.x]))", {"sum b"}),
        ("sum(to_array(b))", {"sum b"}),
        ("sort_by([a, b], &x)", {"sort_by b"}),
        ("{x: b.y, z: a} | length(x)", {"length b"}),
        ("{x: b.y, z: a} | length(z)", set()),
        ("max([a.x, b.x][*])", set()),
        ("sum([a.x, b.x][])", set()),
        # The expression handles the null.
        ("not_null(length(b), `0`)", set()),
        ("length(b) || `0`", set()),
        ("{n: length(b) || `0`, m: sum(c.x) || 'none'}", set()),
        ("merge(a, b) || a", set()),
        ("b && length(b)", set()),
        ("b && length(b) || `0`", set()),
        ("b.rows && c && join(b.x, c)", set()),
        ("!b && `0` || length(b)", set()),
        ("b == `null` && 'none' || length(b)", set()),
        ("(!b || !c) && 'none' || merge(b, c)", set()),
        ("b.{n: length(@)}", set()),
        ("b | [length(x)]", set()),
        # The expression only seems to handle the null.
        ("c && length(b)", {"length b"}),
        ("b || length(b)", {"length b"}),
        ("!b && length(b)", {"length b"}),
        ("!b && `false` || length(b)", {"length b"}),
        ("b != `null` && 'some' || length(b)", {"length b"}),
        ("(!b && !c) && 'none' || merge(b, c)", {"merge b", "merge c"}),
        ("{n: length(b)} || `0`", {"length b"}),
        ("not_null(a, length(b))", {"length b"}),
        ("b.length(@)", {"length b"}),
        # An item of an each may be null.
        ("sum(e)", {"sum e[*]"}),
        ("sort_by(e, &x)", {"sort_by e[*]"}),
        ("max_by(reverse(e), &x)", {"max_by e[*]"}),
        ("join(',', values(e))", {"join e[*]"}),
        ("length(e)", set()),
        ("map(&length(@), e)", set()),
        ("sum(e[*])", set()),
        ("sort_by(e[?@], &x)", set()),
        ("sum(e[*].x)", set()),
    ],
)
def test_functions_with_a_part_that_may_be_null_as_argument(text: str, met: set[str]) -> None:
    found = null_arguments(compile_expression(text, ()).tree, PARTS)
    assert {f"{meeting.function} {meeting.part}" for meeting in found} == met


CALLS = '[[routes]]\npath = "/r"\n{keys}\n[routes.calls.a]\nupstream = "u"\npath = "/"\n{a}\n'
SHAPE = '[routes.answer]\nshape = "length(a)"\n'


@pytest.mark.parametrize(
    ("keys", "call", "said"),
    [
        (
            "",
            "optional = true",
            '"a" is null (it is optional and has no default); give "a" a default, or write not_null',
        ),
        ("", 'when = "query.q"', "(when may skip it, and it has no default); give"),
        ("", "null_on = [404]", "(null_on 404); write not_null(a, …)"),
        ("", "null_on = [404]\noptional = true\ndefault = []", "(null_on 404); write not_null(a, …)"),
        ('combine = "first"', "", '(combine = "first" does not need it); write'),
        ("", "optional = true\ndefault_null = true", '"a" is null (its default is null); write not_null(a, …)'),
        ("", 'decode = "none"', '"a" is null (decode = "none"); write not_null(a, …)'),
        ("", "optional = true\ndefault = []", None),
        ("", "", None),
        ("", 'each = "body"\nnull_on = [404]', None),
        ("", 'each = "body"\noptional = true\ndefault = []', None),
    ],
)
def test_a_shape_warns_of_parts_that_may_be_missing(keys: str, call: str, said: str | None) -> None:
    made = config(CALLS.format(keys=f'query = ["q"]\n{keys}', a=call) + SHAPE)
    reasons = [reason for path, reason in warn(made)]
    assert len(reasons) == (said is not None)
    assert said is None or said in reasons[0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "optional = true\ndefault = []",
            'an item of "a" is null (it is optional and has no item_default); give it an item_default, or write',
        ),
        ("null_on = [404]", 'an item of "a" is null (null_on 404); write [*] after the list to leave nulls out'),
        ('decode = "none"', 'an item of "a" is null (decode = "none"); write [*] after the list'),
        ("optional = true\ndefault = []\nitem_default = 0", None),
        ("", None),
    ],
)
def test_a_shape_warns_of_items_that_may_be_missing(call: str, said: str | None) -> None:
    made = config(CALLS.format(keys="", a=f'each = "body"\n{call}') + '[routes.answer]\nshape = "sum(a)"\n')
    reasons = [reason for _, reason in warn(made)]
    assert len(reasons) == (said is not None)
    assert said is None or said in reasons[0]


def test_a_call_that_is_skipped_with_another_may_be_missing_too() -> None:
    later = '[routes.calls.b]\nupstream = "u"\npath = "/{a.id}"\n[routes.answer]\nshape = "keys(b)"\n'
    made = config(CALLS.format(keys='query = ["q"]', a='when = "query.q"') + later)
    ((path, reason),) = warn(made)
    assert path == ("routes", 0, "answer", "shape")
    assert 'the when of "a" may skip it' in reason


def test_a_dependent_call_warns_only_if_its_part_can_be_null_when_it_starts() -> None:
    later = '[routes.calls.b]\nupstream = "u"\npath = "/"\nparams = { n = "length(a)" }\n'
    assert list(warn(config(CALLS.format(keys="", a="optional = true") + later))) == []
    ((path, _),) = warn(config(CALLS.format(keys="", a="null_on = [404]") + later))
    assert path == ("routes", 0, "calls", "b", "params", "n")


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("abs('x')", {"abs"}),
        ('{n: length(`null`), m: [sum(`[1, "a"]`)]}', {"length", "sum"}),
        ("join(', ', `[1]`)", {"join"}),
        ("map(&keys(`[]`), a)", {"keys"}),
        ("merge(a, `[]`)", {"merge"}),
        ("abs(`true`)", {"abs"}),
        ("join(', ', `[]`)", set()),
        ("contains(`[1]`, a)", set()),
        ("not_null(a, `null`)", set()),
        ("max(`[1, 2]`) || length('x')", set()),
        ("merge(a, `{}`)", set()),
    ],
)
def test_a_constant_of_a_type_that_a_function_does_not_take_is_a_warning(text: str, functions: set[str]) -> None:
    made = config(CALLS.format(keys="", a="") + f"[routes.answer]\nshape = '''{text}'''\n")
    said = {reason.partition("(")[0] for _, reason in warn(made)}
    assert said == functions


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("each = '`1`'", "each needs a list"),
        ("each = '`{}`'", "each needs a list"),
        ("each = '`[1]`'", None),
        ("each = '`null`'", None),
        ("params = { p = { value = { a = 1 } } }", "a query or a form can hold"),
        ("params = { p = '`[[1]]`' }", "a query or a form can hold"),
        ("params = { p = { value = [1, 2] } }", None),
        ("form = { p = { value = [{}] } }\nmethod = 'POST'", "a query or a form can hold"),
        ("json = { p = { value = [{}] } }\nmethod = 'POST'", None),
    ],
)
def test_a_constant_that_makes_a_call_always_fail_is_a_warning(call: str, said: str | None) -> None:
    reasons = [reason for _, reason in warn(config(CALLS.format(keys="", a=call)))]
    assert len(reasons) == (said is not None)
    assert said is None or reasons[0].startswith(said)
