"""Fault of a failed expression or a bad value: whether the client, an upstream or the configuration caused it.

An expression fails only if it exceeds a bound. It is then evaluated once more to find its smallest failing part. The
values that this part reads are at fault: an expression may read both the request and calls, and only one of them may be
wrong. If the evaluation took too many steps, the largest value is at fault instead. The search runs only after a
failure, and takes at most as many steps as the expression may.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import jmespath
import msgspec

from ...core.failure_kinds import Kind
from ...core.model import Failure, Json
from ..decode import estimate_values
from .interpreter import Interpreter, TooManyStepsError

Node = Mapping[str, Any]

# Nodes whose children are all evaluated on the same value as the node.
SAME_VALUE = frozenset(
    {
        "comparator",
        "or_expression",
        "and_expression",
        "not_expression",
        "multi_select_dict",
        "multi_select_list",
        "key_val_pair",
        "function_expression",
        "flatten",
    }
)
# Nodes whose first child is evaluated on the same value as the node, and the other children on its result.
FIRST_ONLY = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"}
)


class ContextPath(NamedTuple):
    """A name that an expression reads from the context, and the field of its value (None: the whole value)."""

    root: str
    field: str | None


class Fault(NamedTuple):
    """The cause of a failed expression."""

    names: tuple[ContextPath, ...]
    """The context paths that the failing part reads; empty: it reads only constants."""
    reason: str
    """The end of a sentence that begins with "it cannot be used: ". It holds no value."""


def names_of(node: Node) -> Iterator[ContextPath]:
    """Yield the context paths that a node reads if it is evaluated on the context.

    Raises:
        ValueError: the node reads the whole context, or its type is unknown.
    """
    kind = node["type"]
    if kind == "field":
        yield ContextPath(node["value"], None)
    elif kind in ("current", "identity"):
        raise ValueError(
            "it reads the whole context (@, *, [] or another bracket at the root); begin with the name of a call, or "
            "with path, query, headers, cookies, body, client or (in a call with each) item"
        )
    elif kind == "subexpression" and node["children"][0]["type"] == "field":
        yield ContextPath(node["children"][0]["value"], _first_field(node["children"][1]))
    elif kind in SAME_VALUE or kind in FIRST_ONLY:
        for child in _on_context(node):
            yield from names_of(child)
    elif kind not in ("literal", "expref", "index", "slice"):
        raise ValueError(f"a JMESPath node has an unknown type, {kind}")


def fault_of(node: Node, context: Mapping[str, Json], options: jmespath.Options, steps: int, error: Exception) -> Fault:
    """Find the fault of an expression that failed with ``error`` on ``context``.

    Args:
        steps: the most steps of the failed evaluation, and of the search.
    """
    try:
        names = _reads_of_failed_part(node, context, options, steps, error)
    except TooManyStepsError:
        names = _largest(node, context)
    return Fault(names, _reason(error))


def _reads_of_failed_part(
    node: Node, context: Mapping[str, Json], options: jmespath.Options, steps: int, error: Exception
) -> tuple[ContextPath, ...]:
    """The context paths that the smallest failing part of an expression reads.

    Raises:
        TooManyStepsError: ``error`` is one.
    """
    if isinstance(error, TooManyStepsError):
        raise error
    tracer = _Tracer(options, context, steps)
    with suppress(Exception):
        tracer.visit(node, context)
    return tuple(dict.fromkeys(names_of(tracer.failed or node)))


def _largest(node: Node, context: Mapping[str, Json]) -> tuple[ContextPath, ...]:
    """The context path of an expression that holds the most values, and so causes the most steps."""

    def size(name: ContextPath) -> int:
        value = context.get(name.root)
        if name.field is not None:
            value = value.get(name.field) if isinstance(value, dict) else None
        return estimate_values(msgspec.json.encode(value))

    names = tuple(dict.fromkeys(names_of(node)))
    return names if len(names) < 2 else (max(names, key=size),)


def origins(
    node: Node, context: Mapping[str, Json], options: jmespath.Options, steps: int, value: Json
) -> tuple[ContextPath, ...]:
    """The context paths from which ``value`` came: the expression's result on ``context``, or a part of it.

    The smallest parts of the expression count whose result is ``value`` (the same object) or a list that holds it. If
    no part has such a result, the parts with an equal list count, since a projection makes a new list each time. After
    ``steps`` steps the search ends, with the largest value that the expression reads.
    """
    visitor = Interpreter(options, steps)
    try:
        found = _origins(node, context, visitor, value)
        if not found and isinstance(value, list):
            found = _origins(node, context, visitor, value, same=operator.eq)
        return tuple(dict.fromkeys(found))
    except TooManyStepsError:
        return _largest(node, context)


def _is_or_holds(result: Json, value: Json) -> bool:
    return result is value or (isinstance(result, list) and any(each is value for each in result))


def _origins(
    node: Node,
    context: Mapping[str, Json],
    visitor: Any,
    value: Json,
    same: Callable[[Json, Json], bool] = _is_or_holds,
) -> list[ContextPath]:
    found = [name for child in _on_context(node) for name in _origins(child, context, visitor, value, same)]
    if found:
        return found
    result = _visited(node, context, visitor)
    if same(result, value):
        return list(names_of(node))
    return []


class _Tracer(Interpreter):
    """Interpreter that finds the smallest failing part: the innermost failing node that is evaluated on the context."""

    def __init__(self, options: jmespath.Options, context: Mapping[str, Json], steps: int) -> None:
        super().__init__(options, steps)
        self._context = context
        self.failed: Node | None = None

    def visit(self, node: Node, value: Any) -> Any:
        try:
            return super().visit(node, value)
        except Exception:
            if self.failed is None and value is self._context:
                self.failed = node
            raise


_FAILED: Any = object()


def _visited(node: Node, context: Mapping[str, Json], visitor: Any) -> Json:
    """The value of a node; ``_FAILED`` if the evaluation fails."""
    try:
        return visitor.visit(node, context)
    except TooManyStepsError:
        raise
    except Exception:  # noqa: BLE001  # only the fact of the failure counts here
        return _FAILED


def _on_context(node: Node) -> list[Node]:
    """The children of a node that are evaluated on the same value as the node."""
    kind, children = node["type"], node["children"]
    if kind in SAME_VALUE:
        return list(children)
    return list(children[:1]) if kind in FIRST_ONLY else []


def _first_field(node: Node) -> str | None:
    """The field that the right side of a dot reads first, such as b in ``a.b[0]``; None if it reads several fields."""
    while node["type"] in FIRST_ONLY:
        node = node["children"][0]
    return node["value"] if node["type"] == "field" else None


def _reason(error: Exception) -> str:
    """The reason for the client. It holds no value, since values may be confidential."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TooManyStepsError):
        return "it holds too many values, or too much text"
    return "a text or a number that is made of it would be too large"


# Words for the client.


def describe_parameters(names: Iterable[ContextPath], item: str = "") -> str:
    """Words for the parameters of the client's request that these paths name; empty if any path names another value.

    Args:
        item: words for the list of an ``each``; empty: the list is not the client's.
    """
    parts = [describe_parameter(name.root, () if name.field is None else (name.field,), item) for name in names]
    return " and ".join(dict.fromkeys(parts)) if all(parts) else ""


def describe_parameter(root: str, fields: tuple[str, ...], item: str = "") -> str:
    """Words for a parameter of the client's request, such as ``the query parameter "limit"``.

    Empty if the name is no parameter of the client's.

    Args:
        root: the name in the context, such as ``query``.
        fields: the members that are read of its value.
        item: words for the list of an ``each``; empty: the list is not the client's.
    """
    name = ".".join(fields)
    if root == "headers":
        return f'the header "{name.replace("_", "-")}"'
    if root == "cookies":
        return f'the cookie "{name}"'
    if root == "item":
        whole = f"an item of {item}" if item else ""
    elif root in ("path", "query"):
        return f'the {root} parameter "{name}"' if name else f"the {root}"
    else:
        whole = "the body" if root == "body" else ""
    return f'the member "{name}" of {whole}' if name and whole else whole


def client_sentence(client_parameter: str, reason: str) -> str:
    """A sentence for the client about a parameter of its request; empty if ``client_parameter`` is."""
    return f"{client_parameter[0].upper()}{client_parameter[1:]} {reason}." if client_parameter else ""


def bad_request(detail: str, client_parameter: str, reason: str, *, kind: Kind = Kind.BAD_REQUEST) -> Failure:
    """The failure because of a value that cannot be used. Its status is 400 if the value is the client's.

    Args:
        detail: the sentence for records.
        client_parameter: words for the client's parameter that the value came from; empty: it is not the client's, and
            the status is that of ``kind``.
        reason: the rest of the sentence for the client.
    """
    return Failure.of(
        kind, detail, status=400 if client_parameter else None, public=client_sentence(client_parameter, reason)
    )
