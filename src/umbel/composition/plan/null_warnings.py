"""Warnings about functions of expressions whose argument may be null, found at load by an analysis of syntax trees.

A *part* of an answer is the value of a call. It is null if the call is optional and fails, if ``when`` skips the call,
if ``null_on`` has its status, if its body is not decoded, or if its default is null. A function with a null argument
gives null (``interpreter.py``), so the other parts among its arguments are lost. ``umbel check`` warns of such a
function, and of a constant of a type that its function does not accept.

There is no warning if the expression handles the null: by ``||`` or ``not_null`` around the function, or before it by
``b && …``, ``b != `null` && …`` or ``b == `null` && … || …``.

The items of an ``each`` are parts too, written ``b[*]``: a failed item is null in a list that is not null.

The analysis (``NullSearch``) evaluates the expression with ``KnownValue`` instead of values: for each node, the parts
that make its value null if they are null. A function is reported if such a part reaches an argument that accepts no
null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.model import Json
from ..text.expression import is_false
from ..text.functions import argument_types

if TYPE_CHECKING:
    from ...config.schema.sections import Call, KeyPath
    from ..text.expression import Expression
    from .plan import CallPlan, Plan

Node = Mapping[str, Any]
Parts = frozenset[str]
"""Names of parts that make a value null if they are null."""

_NONE: Parts = frozenset()
# Nodes whose value is null if the value of their first child is null.
_NULL_AS_FIRST = frozenset(
    {"index_expression", "projection", "value_projection", "filter_projection", "flatten", "key_val_pair"}
)
# Functions that accept null: those that give null for a null argument, and those that do so only if all are null.
_NULL_OF_NULL = frozenset({"to_number", "lookup"})
_NULL_OF_ALL = frozenset({"not_null"})
# Functions that compare the items of their list; null has no order.
_ORDERING = frozenset({"sort_by", "max_by", "min_by"})
# Functions whose result holds the items of their argument.
_SAME_ITEMS = frozenset({"reverse", "values"})


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


class NullArgument(NamedTuple):
    """The name of a function, and of a part whose null reaches an argument of the function that accepts no null."""

    part: str
    function: str


class _NullReason(NamedTuple):
    """The reason why a part may be null in an answer that is sent."""

    why: str
    hint: str
    """The change in the configuration, as the beginning of a sentence; empty: only the expression can be changed."""
    is_named: bool = False
    """Whether calls that depend on the part are also made if the part is null."""


class KnownValue(NamedTuple):
    """The facts that are known about a value without a request."""

    nulls: Parts = _NONE
    """The parts that make the value null if they are null."""
    items: Parts = _NONE
    """The parts that make an item of the list or the object null if they are null."""
    fields: Mapping[str, KnownValue] | None = None
    """The members of the object; None: unknown."""


_ANY = KnownValue()


def missing_part_warnings(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield each warning about nulls and wrong constants in a route's expressions: the path of the key, and a sentence.

    The sentence says what to write instead, that a function's value is always null, or that the call always fails.
    """
    may_miss = _nullable_parts(plan)
    for call in plan.calls:
        yield from _always_failing(call)
    for expression, of_call in _expressions(plan):
        # A call is not made if a part without a default, on which it depends, fails or is skipped.
        parts = {name: missing for name, missing in may_miss.items() if of_call is None or missing.is_named}
        for function in sorted(set(_mistyped_functions(expression.tree))):
            yield expression.where, f"{function}() does not accept the constant in it: its value is always null"
        for part, function in null_arguments(expression.tree, frozenset(parts)):
            why, hint, _ = parts[part]
            name = part.removesuffix(_ITEMS)
            which, instead = f'"{name}"', f"write not_null({part}, …) with another value"
            if name != part:
                which, instead = f"an item of {which}", "write [*] after the list to leave nulls out"
            yield (
                expression.where,
                f"{function}() gives null if {which} is null ({why}); {hint}{instead}",
            )


_ITEMS = "[*]"
"""The suffix in the name of a part that stands for the items of a call."""


def null_arguments(node: Node, parts: Parts) -> list[NullArgument]:
    """The functions of an expression that get null if one of ``parts`` is null: the innermost one for each part."""
    search = NullSearch()
    names = {part.removesuffix(_ITEMS) for part in parts}
    fields = {name: KnownValue(parts & {name}, parts & {name + _ITEMS}) for name in names}
    search.value_of(node, KnownValue(fields=fields))
    return list({meeting.part: meeting for meeting in reversed(search.found)}.values())[::-1]


class NullSearch:
    """Abstract interpreter of a syntax tree: it computes a ``KnownValue`` for each node."""

    def __init__(self) -> None:
        self.found: list[NullArgument] = []
        self.non_null: Parts = _NONE
        """The parts that are not null when the current node is evaluated."""

    def value_of(self, node: Node, here: KnownValue) -> KnownValue:
        """The facts about the value of a node that is evaluated on ``here``."""
        kind, children = node["type"], node["children"]
        if kind == "field":
            return here.fields.get(node["value"], _ANY) if here.fields is not None else KnownValue(here.nulls)
        if kind == "function_expression":
            return self._function(node, here)
        if kind in ("subexpression", "pipe"):
            for child in children:
                here = self.value_of(child, here)
            return here
        if kind in ("or_expression", "and_expression"):
            return self._logical(node, here)
        if kind in _NULL_AS_FIRST:
            first, *rest = children
            nulls = self.value_of(first, here).nulls
            for child in rest:
                self._inner(child)
            return KnownValue(nulls)
        if kind in ("literal", "expref"):
            for child in children:
                self._inner(child)
            return _ANY
        if kind in ("multi_select_list", "multi_select_dict"):
            return self._multi_select(node, here)
        for child in children:
            if isinstance(child, dict):
                self.value_of(child, here)
        return _ANY if kind in ("comparator", "not_expression") else here

    def _inner(self, node: object) -> None:
        """Visit a node that is evaluated on the items of a value, about which nothing is known."""
        if isinstance(node, dict):
            self.value_of(node, _ANY)

    def _value_where(self, there: Parts, node: Node, here: KnownValue) -> KnownValue:
        """The facts about the value of a node that is evaluated only if no part of ``there`` is null."""
        before, self.non_null = self.non_null, self.non_null | there
        value = self.value_of(node, here)
        self.non_null = before
        return value

    def _null_handled(self, node: Node, here: KnownValue) -> KnownValue:
        """The facts about a node whose null is handled: parts that make the node null are not reported."""
        count = len(self.found)
        value = self.value_of(node, here)
        self.found[count:] = [meeting for meeting in self.found[count:] if meeting.part not in value.nulls]
        return value

    def _logical(self, node: Node, here: KnownValue) -> KnownValue:
        left, right = node["children"]
        if node["type"] == "and_expression":
            first = self.value_of(left, here)
            second = self._value_where(first.nulls | _false_by(left, here), right, here)
            return KnownValue(first.nulls | second.nulls)
        first = self._null_handled(left, here)
        second = self._value_where(_true_by(left, here), right, here)
        # Null only if both sides are null.
        nulls = first.nulls | second.nulls if first.nulls and second.nulls else _NONE
        return KnownValue(nulls, first.items | second.items)

    def _multi_select(self, node: Node, here: KnownValue) -> KnownValue:
        """The facts about a list or an object made from ``here``. It is null if ``here`` is null."""
        there = KnownValue(fields=here.fields)
        made = [self._value_where(here.nulls, child, there) for child in node["children"]]
        items = _NONE.union(*(value.nulls for value in made))
        if node["type"] == "multi_select_list":
            return KnownValue(here.nulls, items)
        names = (child["value"] for child in node["children"])
        return KnownValue(here.nulls, items, dict(zip(names, made, strict=True)))

    def _function(self, node: Node, here: KnownValue) -> KnownValue:
        name, children = node["value"], node["children"]
        last = len(children) - 1
        given = [
            (self._null_handled if name in _NULL_OF_ALL and place < last else self.value_of)(child, here)
            for place, child in enumerate(children)
        ]
        refused: Parts = _NONE
        for place, value in enumerate(given):
            types = argument_types(name, place)
            if types and "null" not in types:
                refused |= value.nulls
                if (name in _ORDERING and place == 0) or all(kind.startswith("array-") for kind in types):
                    refused |= value.items
        refused -= self.non_null
        self.found.extend(NullArgument(part, name) for part in sorted(refused))
        if name in _NULL_OF_ALL:
            nulls = [value.nulls for value in given]
            return KnownValue(_NONE.union(*nulls) if all(nulls) else _NONE)
        if name == "to_array":
            return KnownValue(items=given[0].items | given[0].nulls)
        items = given[0].items if name in _SAME_ITEMS else _NONE
        return KnownValue(given[0].nulls if name in _NULL_OF_NULL else refused, items)


def _true_by(node: Node, here: KnownValue) -> Parts:
    """The parts that make a condition true if they are null: ``!b``, ``b == `null```, and combinations of these."""
    kind, children = node["type"], node["children"]
    if kind == "not_expression":
        return NullSearch().value_of(children[0], here).nulls
    if kind == "comparator" and node["value"] == "eq":
        left, right = children
        for one, other in ((left, right), (right, left)):
            if other["type"] == "literal" and other["value"] is None:
                return NullSearch().value_of(one, here).nulls
    if kind == "and_expression":
        left, right = children
        # With a true constant on the right, only the left side decides whether the condition is true.
        if right["type"] == "literal" and not is_false(right["value"]):
            return _true_by(left, here)
        return _true_by(left, here) & _true_by(right, here)
    if kind == "or_expression":
        return _true_by(children[0], here) | _true_by(children[1], here)
    return _NONE


def _false_by(node: Node, here: KnownValue) -> Parts:
    """The parts that make a condition false if they are null, beside those that make it null."""
    kind, children = node["type"], node["children"]
    if kind == "comparator" and node["value"] in ("eq", "ne"):
        for one, other in (children, children[::-1]):
            if other["type"] == "literal" and (other["value"] is None) == (node["value"] == "ne"):
                return NullSearch().value_of(one, here).nulls
    if kind in ("and_expression", "or_expression"):
        first, second = (NullSearch().value_of(child, here).nulls | _false_by(child, here) for child in children)
        return first | second if kind == "and_expression" else first & second
    return _NONE


def _always_failing(call: CallPlan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each constant that makes a call always fail: no list for ``each``, an object in a query."""
    if call.fan_out is not None and call.fan_out.source.tree["type"] == "literal":
        value = call.fan_out.source.tree["value"]
        if not isinstance(value, (list, type(None))):
            yield call.fan_out.source.where, "each needs a list, and this constant is none: the call always fails"
    body = call.request_template.body
    for param in (*call.request_template.params, *(body.fields if body is not None and body.form else ())):
        tree = param.expression.tree
        if tree["type"] != "literal":
            continue
        value = tree["value"]
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, (list, dict)) for one in value)):
            yield (
                param.expression.where,
                "a query or a form can hold only texts, numbers and lists of them: the call always fails",
            )


def _mistyped_functions(node: Node) -> Iterator[str]:
    """Yield the names of the functions with a constant of a type that they do not accept."""
    for place, child in enumerate(node["children"]):
        if not isinstance(child, dict):
            continue
        yield from _mistyped_functions(child)
        if node["type"] == "function_expression" and child["type"] == "literal":
            types = argument_types(node["value"], place)
            if types and not any(_fits(child["value"], kind) for kind in types):
                yield node["value"]


def _fits(value: Json, kind: str) -> bool:
    """Whether a value is of a JMESPath type, such as ``array-number``."""
    outer, _, inner = kind.partition("-")
    if isinstance(value, bool):
        return outer == "boolean"
    if isinstance(value, list):
        return outer == "array" and (not inner or all(_fits(item, inner) for item in value))
    return isinstance(value, _TYPES.get(outer, ()))


def _nullable_parts(plan: Plan) -> dict[str, _NullReason]:
    """The parts that may be null in an answer that is sent, with the reasons."""
    found: dict[str, _NullReason] = {}
    skipped: set[str] = set()
    waiting = list(plan.calls)
    while waiting:
        call = waiting.pop(0)
        if any(other.name in call.needs for other in waiting):
            waiting.append(call)  # Dependencies first: a call is skipped if one of them is.
            continue
        config, above = call.config, skipped.intersection(call.needs)
        if not config.has_default and (config.when is not None or above):
            skipped.add(call.name)
        if call.fan_out is not None and (items := _items_may_miss(config)) is not None:
            found[call.name + _ITEMS] = items
        if call.fan_out is None and (always := _null_of_success(config)):
            found[call.name] = _NullReason(always, "", is_named=True)
        elif config.has_default:
            if config.default is None:
                found[call.name] = _NullReason("its default is null", "", is_named=True)
        elif config.optional:
            found[call.name] = _NullReason("it is optional and has no default", _default(call.name, config))
        elif call.name in skipped:
            by = "when" if config.when is not None else f'the when of "{min(above)}"'
            found[call.name] = _NullReason(f"{by} may skip it, and it has no default", _default(call.name, config))
        elif plan.route.combine != "all":
            found[call.name] = _NullReason(f'combine = "{plan.route.combine}" does not need it', "")
    return found


def _null_of_success(config: Call) -> str:
    """The reason why the value of a successful call may be null; empty: it cannot be null."""
    if config.decode == "none":
        return 'decode = "none"'
    return f"null_on {', '.join(map(str, config.null_on))}" if config.null_on else ""


def _items_may_miss(config: Call) -> _NullReason | None:
    if always := _null_of_success(config):
        return _NullReason(always, "", is_named=True)
    if config.optional and config.item_default is None:
        return _NullReason("it is optional and has no item_default", "give it an item_default, or ", is_named=True)
    return None


def _default(part: str, call: Call) -> str:
    return f'give "{part}" a default, or ' if call.optional or call.when is not None else ""


def _expressions(plan: Plan) -> Iterator[tuple[Expression, CallPlan | None]]:
    """Yield every expression of a route with the call that it belongs to (None: the answer)."""
    for call in plan.calls:
        request_template = call.request_template
        body = request_template.body
        if call.when is not None:
            yield call.when, call
        if call.fan_out is not None:
            yield call.fan_out.source, call
        if body is not None and body.whole is not None:
            yield body.whole.expression, call
        for param in (*request_template.bound, *request_template.params, *(body.fields if body is not None else ())):
            yield param.expression, call
    if plan.answer_expression is not None:
        yield plan.answer_expression, None
