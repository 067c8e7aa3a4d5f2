"""Where an expression gives a part that may be missing to a function that takes no null.

A call without a value is null in the context: an optional one that fails, one that ``when`` skips, one whose status
``null_on`` makes null, one whose body is not read or whose default is null. A function that is given such a null is
null itself (``interpreter.py``), and with it whatever it was to make of the other parts. That is rarely meant, so
``umbel check`` tells it, and so it tells a constant that its function never takes. Nothing is said where the expression
provides for the null: by ``||`` or ``not_null`` around the function, by ``b && …`` or ``b == `null` && … || …`` before
it. Judges syntax trees at load.

The items of an ``each`` are parts too, written ``b[*]``: one that fails is null in a list that is none.
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
"""Names of parts whose null makes a value null."""

_NONE: Parts = frozenset()
# What is null where its first child is null, whatever the rest of it is.
_NULL_AS_FIRST = frozenset(
    {"index_expression", "projection", "value_projection", "filter_projection", "flatten", "key_val_pair"}
)
# Functions that take null: those whose value is null then, and those whose value is null if all of theirs are.
_NULL_OF_NULL = frozenset({"to_number", "lookup"})
_NULL_OF_ALL = frozenset({"not_null"})
# Functions that look at the items of their list: one that is null has no order.
_ORDERING = frozenset({"sort_by", "max_by", "min_by"})
# Functions whose value holds the items of their argument.
_SAME_ITEMS = frozenset({"reverse", "values"})


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


class NullArgument(NamedTuple):
    """A function that is given the null of a part."""

    part: str
    function: str


class _NullReason(NamedTuple):
    """Why a part may be null although the answer goes out."""

    why: str
    hint: str
    """What to write, besides what the expression can say."""
    is_named: bool = False
    """Whether a call that names the part is made all the same."""


class _KnownValue(NamedTuple):
    """What is known of a value: the parts whose null makes it null."""

    nulls: Parts = _NONE
    items: Parts = _NONE
    """The parts whose null makes an item of it null, where it is a list or an object."""
    fields: Mapping[str, _KnownValue] | None = None
    """Its members, where they are known."""


_ANY = _KnownValue()


def missing_part_warnings(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """What to warn of in a route: the key of an expression, and a sentence that names the part and what to write."""
    may_miss = _nullable_parts(plan)
    for call in plan.calls:
        yield from _always_failing(call)
    for expression, of_call in _expressions(plan):
        # A call that names a part without a default is not made where that part fails or is skipped.
        parts = {name: missing for name, missing in may_miss.items() if of_call is None or missing.is_named}
        for function in sorted(set(_mistyped_functions(expression.tree))):
            yield expression.where, f"{function}() never takes the constant that stands in it: its value is always null"
        for part, function in null_arguments(expression.tree, frozenset(parts)):
            why, hint, _ = parts[part]
            name = part.removesuffix(_ITEMS)
            which, instead = f'"{name}"', f"write not_null({part}, …) with what is to be taken instead"
            if name != part:
                which, instead = f"an item of {which}", "leave nulls out by [*] behind the list"
            yield (
                expression.where,
                f"{function}() takes no null and gives null where {which} is null ({why}); {hint}{instead}",
            )


_ITEMS = "[*]"
"""Stands behind the name of a part whose items are meant."""


def null_arguments(node: Node, parts: Parts) -> list[NullArgument]:
    """Every function of an expression that is given the null of one of ``parts``: the innermost, each part once."""
    search = _NullSearch()
    names = {part.removesuffix(_ITEMS) for part in parts}
    fields = {name: _KnownValue(parts & {name}, parts & {name + _ITEMS}) for name in names}
    search.value_of(node, _KnownValue(fields=fields))
    return list({meeting.part: meeting for meeting in reversed(search.found)}.values())[::-1]


class _NullSearch:
    """Walks a syntax tree as the interpreter does, with what is known of values in place of them."""

    def __init__(self) -> None:
        self.found: list[NullArgument] = []
        self._non_null: Parts = _NONE
        """The parts that are no null where the walk is: what is there would not be evaluated then."""

    def value_of(self, node: Node, here: _KnownValue) -> _KnownValue:
        """What is known of the value of a node on ``here``."""
        kind, children = node["type"], node["children"]
        if kind == "field":
            return here.fields.get(node["value"], _ANY) if here.fields is not None else _KnownValue(here.nulls)
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
            return _KnownValue(nulls)
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
        """Look at what is evaluated on items: the null of a part is not among them."""
        if isinstance(node, dict):
            self.value_of(node, _ANY)

    def _value_where(self, there: Parts, node: Node, here: _KnownValue) -> _KnownValue:
        """What is known of the value of a node that is evaluated only where ``there`` are no nulls."""
        before, self._non_null = self._non_null, self._non_null | there
        value = self.value_of(node, here)
        self._non_null = before
        return value

    def _null_handled(self, node: Node, here: _KnownValue) -> _KnownValue:
        """What is known of the value of a node whose null is provided for: whatever makes it null is no finding."""
        count = len(self.found)
        value = self.value_of(node, here)
        self.found[count:] = [meeting for meeting in self.found[count:] if meeting.part not in value.nulls]
        return value

    def _logical(self, node: Node, here: _KnownValue) -> _KnownValue:
        left, right = node["children"]
        if node["type"] == "and_expression":
            first = self.value_of(left, here)
            second = self._value_where(first.nulls, right, here)
            return _KnownValue(first.nulls | second.nulls)
        first = self._null_handled(left, here)
        second = self._value_where(_true_by(left, here), right, here)
        # Null only where both are.
        nulls = first.nulls | second.nulls if first.nulls and second.nulls else _NONE
        return _KnownValue(nulls, first.items | second.items)

    def _multi_select(self, node: Node, here: _KnownValue) -> _KnownValue:
        """A list or an object that is made of the value at hand, and null where that is."""
        there = _KnownValue(fields=here.fields)
        made = [self._value_where(here.nulls, child, there) for child in node["children"]]
        items = _NONE.union(*(value.nulls for value in made))
        if node["type"] == "multi_select_list":
            return _KnownValue(here.nulls, items)
        names = (child["value"] for child in node["children"])
        return _KnownValue(here.nulls, items, dict(zip(names, made, strict=True)))

    def _function(self, node: Node, here: _KnownValue) -> _KnownValue:
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
        refused -= self._non_null
        self.found.extend(NullArgument(part, name) for part in sorted(refused))
        if name in _NULL_OF_ALL:
            nulls = [value.nulls for value in given]
            return _KnownValue(_NONE.union(*nulls) if all(nulls) else _NONE)
        if name == "to_array":
            return _KnownValue(items=given[0].items | given[0].nulls)
        items = given[0].items if name in _SAME_ITEMS else _NONE
        return _KnownValue(given[0].nulls if name in _NULL_OF_NULL else refused, items)


def _true_by(node: Node, here: _KnownValue) -> Parts:
    """The parts whose null makes a condition true: ``!b``, ``b == `null```, and what is joined of such."""
    kind, children = node["type"], node["children"]
    if kind == "not_expression":
        return _NullSearch().value_of(children[0], here).nulls
    if kind == "comparator" and node["value"] == "eq":
        left, right = children
        for one, other in ((left, right), (right, left)):
            if other["type"] == "literal" and other["value"] is None:
                return _NullSearch().value_of(one, here).nulls
    if kind == "and_expression":
        left, right = children
        # A constant on the right is what the condition gives; one that is false would let the null through.
        if right["type"] == "literal" and not is_false(right["value"]):
            return _true_by(left, here)
        return _true_by(left, here) & _true_by(right, here)
    if kind == "or_expression":
        return _true_by(children[0], here) | _true_by(children[1], here)
    return _NONE


def _always_failing(call: CallPlan) -> Iterator[tuple[KeyPath, str]]:
    """The constants of a call with which it always fails: no list for ``each``, no scalar for a query or a form."""
    if call.each is not None and call.each.source.tree["type"] == "literal":
        value = call.each.source.tree["value"]
        if not isinstance(value, (list, type(None))):
            yield call.each.source.where, "each takes a list, which this is not: the call always fails"
    body = call.request_template.body
    for param in (*call.request_template.params, *(body.fields if body is not None and body.form else ())):
        tree = param.expression.tree
        if tree["type"] != "literal":
            continue
        value = tree["value"]
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, (list, dict)) for one in value)):
            yield (
                param.expression.where,
                "a query or a form holds texts, numbers and lists of them, which this is not: the call always fails",
            )


def _mistyped_functions(node: Node) -> Iterator[str]:
    """The functions that are given a constant of a type that they do not take."""
    for place, child in enumerate(node["children"]):
        if not isinstance(child, dict):
            continue
        yield from _mistyped_functions(child)
        if node["type"] == "function_expression" and child["type"] == "literal":
            types = argument_types(node["value"], place)
            if types and not any(_fits(child["value"], kind) for kind in types):
                yield node["value"]


def _fits(value: Json, kind: str) -> bool:
    """Whether a value is of a type in JMESPath's words, such as ``array-number``."""
    outer, _, inner = kind.partition("-")
    if isinstance(value, bool):
        return outer == "boolean"
    if isinstance(value, list):
        return outer == "array" and (not inner or all(_fits(item, inner) for item in value))
    return isinstance(value, _TYPES.get(outer, ()))


def _nullable_parts(plan: Plan) -> dict[str, _NullReason]:
    """The calls that may be null although the answer goes out, and those of an ``each`` whose items may be."""
    found: dict[str, _NullReason] = {}
    skipped: set[str] = set()
    waiting = list(plan.calls)
    while waiting:
        call = waiting.pop(0)
        if any(other.name in call.needs for other in waiting):
            waiting.append(call)  # Those that it needs first: it is skipped with them.
            continue
        config, above = call.config, skipped.intersection(call.needs)
        if not config.has_default and (config.when is not None or above):
            skipped.add(call.name)
        if call.each is not None and (items := _items_may_miss(config)) is not None:
            found[call.name + _ITEMS] = items
        if call.each is None and (always := _null_of_success(config)):
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
    """Why a call that has not failed may be null; empty where it is not."""
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
    """Every expression of a route, with the call that it is of (None: of the answer)."""
    for call in plan.calls:
        request_template = call.request_template
        body = request_template.body
        if call.when is not None:
            yield call.when, call
        if call.each is not None:
            yield call.each.source, call
        if body is not None and body.whole is not None:
            yield body.whole.expression, call
        for param in (*request_template.bound, *request_template.params, *(body.fields if body is not None else ())):
            yield param.expression, call
    if plan.shape is not None:
        yield plan.shape, None
