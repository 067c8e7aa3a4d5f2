"""Faults of failed expressions, and the sentences for the client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.composition.composing import TWO, answer, compose
from umbel.composition.text.expression import ExpressionError, compile_expression
from umbel.composition.text.fault import (
    ContextPath,
    bad_request,
    client_sentence,
    describe_parameter,
    describe_parameters,
)
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs

BIG = [1e308, 1e308]
"""Numbers whose sum exceeds the range of JSON."""


@pytest.mark.parametrize(
    ("text", "context", "names"),
    [
        ("sum(body.x)", {"body": {"x": BIG}}, {"body"}),
        ("{a: call, n: sum(body.x)}", {"body": {"x": BIG}, "call": []}, {"body"}),
        ("{a: sum(call), n: sum(body.x)}", {"body": {"x": []}, "call": BIG}, {"call"}),
        ("[call, [body.y, avg(body.x)]]", {"body": {"x": BIG}, "call": []}, {"body"}),
        ("join(body.sep, body.xs)", {"body": {"sep": "x" * 1000, "xs": ["a"] * 2000}}, {"body"}),
        ("join(call, body.xs)", {"body": {"xs": ["a"] * 2000}, "call": "x" * 1000}, {"call", "body"}),
        ("call && sum(body) || `1`", {"body": BIG, "call": True}, {"body"}),
        ("[sum(body)][?a > call]", {"body": BIG, "call": 1}, {"body"}),
        ("call | sum(@)", {"call": BIG, "body": 1}, {"call"}),
        ("sum(`[1e308, 1e308]`)", {"body": 1}, set()),
    ],
)
def test_the_values_in_the_smallest_failing_part_are_at_fault(text: str, context: Any, names: set[str]) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, ()).evaluate(context)
    assert {name.root for name in caught.value.fault.names} == names


def test_the_search_for_a_fault_may_take_as_many_steps_as_the_expression() -> None:
    """The long list takes more steps than the default bound, and the small part fails behind it."""
    context = {"call": [[1]] * 100_000, "body": {"x": BIG}}
    expression = compile_expression("{a: call[*][0], n: sum(body.x)}", (), 1_000_000)
    with pytest.raises(ExpressionError) as caught:
        expression.evaluate(context)
    assert {name.root for name in caught.value.fault.names} == {"body"}


def test_the_search_for_an_origin_may_take_as_many_steps_as_the_expression() -> None:
    context = {"call": [[1]] * 100_000, "body": {"x": [2]}}
    expression = compile_expression("[call[*][0], body.x]", (), 1_000_000)
    assert expression.origins(context, context["body"]["x"]) == (ContextPath("body", "x"),)  # type: ignore[index]


def test_the_reason_is_a_size_and_holds_no_value() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("sum(a)", ()).evaluate({"a": BIG})
    assert caught.value.fault.reason == "a text or a number that is made of it would be too large"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (("query", ("limit",)), 'the query parameter "limit"'),
        (("path", ("id",)), 'the path parameter "id"'),
        (("headers", ("x_tenant",)), 'the header "x-tenant"'),
        (("body", ()), "the body"),
        (("body", ("a", "b")), 'the member "a.b" of the body'),
        (("user", ("id",)), ""),
        (("item", ("id",)), ""),
    ],
)
def test_only_parameters_of_the_client_are_described(name: tuple[str, Any], words: str) -> None:
    assert describe_parameter(*name) == words


def test_an_item_is_the_clients_if_its_list_is() -> None:
    assert describe_parameter("item", ("id",), "the body") == 'the member "id" of an item of the body'
    assert describe_parameters([ContextPath("item", None)], "the body") == "an item of the body"


def test_names_are_the_clients_only_if_all_of_them_are() -> None:
    assert describe_parameters([ContextPath("body", "a"), ContextPath("query", "q")]) == (
        'the member "a" of the body and the query parameter "q"'
    )
    assert describe_parameters([ContextPath("body", "a"), ContextPath("user", None)]) == ""
    assert describe_parameters([]) == ""


def test_a_bad_value_is_a_400_with_a_sentence_only_if_it_is_the_clients() -> None:
    client, other = bad_request("d", "the body", "is a list"), bad_request("d", "", "is a list", kind=Kind.TOO_MANY)
    assert (client.status, client.public, client.of_client) == (400, "The body is a list.", True)
    assert (other.status, other.public, other.of_client) == (502, "", False)
    assert client_sentence("", "is a list") == ""


@pytest.mark.parametrize(
    ("keys", "body", "status"),
    [
        ('path = "/{v}"\nwith = { v = "body.id || a.id" }\n', {"id": [1]}, 400),
        ('path = "/{v.id}"\nwith = { v = "body.o || a" }\n', {"o": {"id": [1]}}, 400),
        ('path = "/{v}"\nwith = { v = "body.id || a.id" }\n', {}, 502),
        ('path = "/"\nparams = { v = "body.id || a.id" }\n', {"id": {"x": 1}}, 400),
        ('path = "/"\nparams = { v = "not_null(body.id, a.id)" }\n', {}, 502),
        ('path = "/"\nform = { v = "body.id || a.id" }\n', {"id": {"x": 1}}, 400),
        ('path = "/x/{item}"\neach = "body.ids || a.ids"\nmax_items = 2\n', {"ids": [1, 2, 3]}, 400),
        ('path = "/x/{item}"\neach = "body.ids || a.ids"\nmax_items = 2\n', {}, 502),
        ('path = "/x/{item.id}"\neach = "body.ids || a.ids"\n', {"ids": [{"id": []}]}, 400),
        ('path = "/x/{item.id}"\neach = "body.ids || a.ids"\n', {}, 502),
        ('path = "/x/{item}"\neach = "[body.id, a.none]"\n', {"id": [7]}, 400),
        ('path = "/x/{item}"\neach = "[body.id, a.id]"\n', {}, 502),
        ('path = "/x/{item}"\neach = "body.xs[*].id || a.ids"\nmax_items = 2\n', {"xs": [{"id": 7}] * 4}, 400),
        ('path = "/"\nform = "{v: body.id, w: a.ids}"\n', {"id": {"x": 1}}, 400),
        ('path = "/"\nform = "{v: body.id, w: a.id}"\n', {"id": "b"}, 502),
        ('path = "/"\nform = "body.id || a"\n', {"id": "text"}, 400),
        ('path = "/{?v}"\nwith = { v = "sum(item)" }\neach = "body.ids || a.ids"\n', {"ids": [BIG]}, 400),
    ],
)
async def test_in_an_expression_with_a_fallback_the_used_value_is_at_fault(keys: str, body: Any, status: int) -> None:
    text = f'[routes.calls.a]\nupstream = "u"\npath = "/a"\n[routes.calls.b]\nupstream = "u"\n{keys}'
    upstream = answer({"id": {"x": 1}, "ids": [1, 2, 3]})
    ran = await compose(text, upstream, inputs=Inputs(body=body))
    assert ran.result.failure is not None
    assert ran.result.failure.status == status
    assert ran.upstream.targets == ["/a"]


async def test_a_failed_expression_of_constants_is_an_internal_failure() -> None:
    text = TWO + '[routes.answer]\nshape = "sum(`[1e308, 1e308]`)"\n'
    ran = await compose(text, {"/a": answer(1), "/b": answer(2)})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.INTERNAL, 500)
    assert ran.recorder.logged[0].level == "error"


async def test_a_dependant_of_a_call_with_a_client_fault_fails_with_the_same_problem() -> None:
    text = (
        '[[routes]]\npath = "/r"\n[routes.calls.a]\nupstream = "u"\npath = "/{body.id}"\noptional = true\n'
        '[routes.calls.b]\nupstream = "u"\npath = "/x/{a.id}"\n'
    )
    ran = await compose(text, {}, inputs=Inputs(body={"id": []}))
    failure = ran.result.failure
    assert failure is not None
    assert (failure.kind, failure.status, failure.public) == (
        Kind.DEPENDENCY,
        400,
        'The member "id" of the body is a list.',
    )
    assert ran.recorder.logged == []
