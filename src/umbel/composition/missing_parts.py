"""Where an expression gives a part that may be missing to a function that takes no null.

A call without a value is null in the context: an optional one that fails, one that ``when`` skips, one whose status
``null_on`` makes null. A function that is given such a null is null itself (``interpreter.py``), and with it whatever
it was to make of the other parts. That is rarely meant, so ``umbel check`` tells it, and so is a constant that its
function never takes. Judges syntax trees at load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..model import Json
from .functions import argument_types

if TYPE_CHECKING:
    from ..config.schema import Call, KeyPath
    from .dag import CallPlan, Plan
    from .expression import Expression

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


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


class Meeting(NamedTuple):
    """A function that is given the null of a part."""

    part: str
    function: str


def warnings(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """What to warn of in a route: the key of an expression, and a sentence that names the part and what to write."""
    may_miss = _may_miss(plan)
    for expression, of_call in _expressions(plan):
        # A call that names a part without a default is not made where that part fails or is skipped.
        parts = {name: why for name, why in may_miss.items() if of_call is None or why.startswith("null_on")}
        for function in sorted(set(_misfits(expression.tree))):
            yield expression.where, f"{function}() never takes the constant that stands in it: its value is always null"
        for part, function in meetings(expression.tree, frozenset(parts)):
            call = plan.route.calls[part]
            default = "" if parts[part].startswith("null_on") else _default(part, call)
            yield (
                expression.where,
                f'{function}() takes no null and gives null where "{part}" is null ({parts[part]}); '
                f"{default}write not_null({part}, …) with what is to be taken instead",
            )


def meetings(node: Node, parts: Parts) -> list[Meeting]:
    """Every function of an expression that is given the null of one of ``parts``: the innermost, each part once."""
    search = _Search(parts)
    search.null_by(node, None)
    return list({meeting.part: meeting for meeting in reversed(search.found)}.values())[::-1]


class _Search:
    """Walks a syntax tree as the interpreter does, with the parts whose null a value would be in place of values."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.found: list[Meeting] = []

    def null_by(self, node: Node, here: Parts | None) -> Parts:
        """The parts whose null makes the node null. ``here``: those of the value at hand; None: it is the context."""
        kind, children = node["type"], node["children"]
        if kind == "field":
            return self._parts & {node["value"]} if here is None else here
        if kind == "function_expression":
            return self._function(node, here)
        if kind in ("subexpression", "pipe"):
            for child in children:
                here = self.null_by(child, here)
            return here or _NONE
        if kind == "or_expression":
            # Null only where both are.
            first, second = (self.null_by(child, here) for child in children)
            return first | second if first and second else _NONE
        if kind in _NULL_AS_FIRST:
            first, *rest = children
            nulls = self.null_by(first, here)
            for child in rest:
                self._inner(child)
            return nulls
        if kind in ("literal", "expref"):
            for child in children:
                self._inner(child)
            return _NONE
        parts = [self.null_by(child, here) for child in children if isinstance(child, dict)]
        if kind in ("comparator", "not_expression"):
            return _NONE
        if kind == "and_expression":
            return _NONE.union(*parts)
        return here or _NONE  # The value at hand, an item of it, or a list or an object that is made of it.

    def _inner(self, node: object) -> None:
        """Look at what is evaluated on items: the null of a part is not among them."""
        if isinstance(node, dict):
            self.null_by(node, _NONE)

    def _function(self, node: Node, here: Parts | None) -> Parts:
        name, children = node["value"], node["children"]
        given = [self.null_by(child, here) for child in children]
        refused: Parts = _NONE
        for place, (child, nulls) in enumerate(zip(children, given, strict=True)):
            types = argument_types(name, place)
            if types and "null" not in types:
                refused |= nulls | self._listed(child, types, here)
        self.found.extend(Meeting(part, name) for part in sorted(refused))
        if name in _NULL_OF_ALL:
            return _NONE.union(*given) if all(given) else _NONE
        return given[0] if name in _NULL_OF_NULL else refused

    def _listed(self, node: Node, types: Sequence[str], here: Parts | None) -> Parts:
        """The parts that are null in a list which may hold numbers or texts only, such as ``join(', ', [a, b])``."""
        if node["type"] != "multi_select_list" or not all(kind.startswith("array-") for kind in types):
            return _NONE
        quiet = _Search(self._parts)
        return _NONE.union(*(quiet.null_by(child, here) for child in node["children"]))


def _misfits(node: Node) -> Iterator[str]:
    """The functions that are given a constant of a type that they do not take."""
    for place, child in enumerate(node["children"]):
        if not isinstance(child, dict):
            continue
        yield from _misfits(child)
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


def _may_miss(plan: Plan) -> dict[str, str]:
    """The calls that may be null although the answer goes out, and why."""
    found: dict[str, str] = {}
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
        if config.null_on:
            found[call.name] = f"null_on {', '.join(map(str, config.null_on))}"
        elif config.has_default:
            continue
        elif config.optional:
            found[call.name] = "it is optional and has no default"
        elif call.name in skipped:
            by = "when" if config.when is not None else f'the when of "{min(above)}"'
            found[call.name] = f"{by} may skip it, and it has no default"
        elif plan.route.combine != "all":
            found[call.name] = f'combine = "{plan.route.combine}" does not need it'
    return found


def _default(part: str, call: Call) -> str:
    return f'give "{part}" a default, or ' if call.optional or call.when is not None else ""


def _expressions(plan: Plan) -> Iterator[tuple[Expression, CallPlan | None]]:
    """Every expression of a route, with the call that it is of (None: of the answer)."""
    for call in plan.calls:
        recipe = call.recipe
        body = recipe.body
        if call.when is not None:
            yield call.when, call
        if call.each is not None:
            yield call.each.source, call
        if body is not None and body.whole is not None:
            yield body.whole.expression, call
        for param in (*recipe.bound, *recipe.params, *(body.fields if body is not None else ())):
            yield param.expression, call
    if plan.shape is not None:
        yield plan.shape, None
