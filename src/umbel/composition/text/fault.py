"""Fault of a failed expression or a bad value: whether the client, an upstream or the configuration caused it.

An expression fails only if it exceeds a bound. It is then evaluated once more to find its smallest failing part, and
what that part reads is at fault. So for an expression that reads both the request and calls, the wrong value is at
fault. This runs only after a failure, in as many steps as the evaluation took; if the evaluation took too many
steps, the largest value is at fault.
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

# Nodes whose children are all evaluated on the value of the node itself ...
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
# ... or only the first child, and the rest on the result of the first.
FIRST_ONLY = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "pipe"}
)


class ContextPath(NamedTuple):
    """A name that an expression reads from the context, and the field that it reads of it (None: the whole value)."""

    root: str
    field: str | None


class Fault(NamedTuple):
    """The cause of a failed expression."""

    names: tuple[ContextPath, ...]
    """What the failing part reads; empty if it reads only constants."""
    reason: str
    """The end of a sentence that begins with "it cannot be used: ". Contains no value."""


def names_of(node: Node) -> Iterator[ContextPath]:
    """The context paths that a node reads if it is evaluated on the context.

    Raises:
        ValueError: it reads the whole context, or is of an unknown type.
    """
    kind = node["type"]
    if kind == "field":
        yield ContextPath(node["value"], None)
    elif kind in ("current", "identity"):
        raise ValueError(
            "it reads the whole context (@, * or [] at the root); name a call, path, query, headers or body"
        )
    elif kind == "subexpression" and node["children"][0]["type"] == "field":
        yield ContextPath(node["children"][0]["value"], _first_field(node["children"][1]))
    elif kind in SAME_VALUE or kind in FIRST_ONLY:
        for child in _on_context(node):
            yield from names_of(child)
    elif kind not in ("literal", "expref", "index", "slice"):
        raise ValueError(f"a JMESPath node of an unknown type, {kind}")


def fault_of(node: Node, context: Mapping[str, Json], options: jmespath.Options, error: Exception) -> Fault:
    """Find the fault of an expression that failed with ``error`` on ``context``."""
    try:
        names = _reads_of_failed_part(node, context, options, error)
    except TooManyStepsError:
        names = _largest(node, context)
    return Fault(names, _reason(error))


def _reads_of_failed_part(
    node: Node, context: Mapping[str, Json], options: jmespath.Options, error: Exception
) -> tuple[ContextPath, ...]:
    """The context paths that the smallest failing part of an expression reads.

    Raises:
        TooManyStepsError: ``error`` is one, or the search takes too many steps too.
    """
    if isinstance(error, TooManyStepsError):
        raise error
    tracer = _Tracer(options, context)
    with suppress(Exception):
        tracer.visit(node, context)
    return tuple(dict.fromkeys(names_of(tracer.failed or node)))


def _largest(node: Node, context: Mapping[str, Json]) -> tuple[ContextPath, ...]:
    """The context path of an expression whose value holds the most values, and so makes the evaluation long."""

    def size(name: ContextPath) -> int:
        value = context.get(name.root)
        if name.field is not None:
            value = value.get(name.field) if isinstance(value, dict) else None
        return estimate_values(msgspec.json.encode(value))

    names = tuple(dict.fromkeys(names_of(node)))
    return names if len(names) < 2 else (max(names, key=size),)


def origins(node: Node, context: Mapping[str, Json], options: jmespath.Options, value: Json) -> tuple[ContextPath, ...]:
    """The context paths that a result ``value`` of an expression comes from.

    They are what the parts read whose result is ``value`` (the same object) or a list that holds it. If there are none:
    the parts whose result is an equal list, since a projection makes a new list each time.
    """
    visitor = Interpreter(options)
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
    """Interpreter that finds the smallest failing part: the innermost failing node evaluated on the context."""

    def __init__(self, options: jmespath.Options, context: Mapping[str, Json]) -> None:
        super().__init__(options)
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
    """The value of a node, or ``_FAILED``."""
    try:
        return visitor.visit(node, context)
    except TooManyStepsError:
        raise
    except Exception:  # noqa: BLE001  # whatever it is: that it fails is what is asked
        return _FAILED


def _on_context(node: Node) -> list[Node]:
    """The children of a node that are evaluated on the same value as the node."""
    kind, children = node["type"], node["children"]
    if kind in SAME_VALUE:
        return list(children)
    return list(children[:1]) if kind in FIRST_ONLY else []


def _first_field(node: Node) -> str | None:
    """The field that the right side of a dot reads first, such as b of ``a.b[0]``; None if it reads several."""
    while node["type"] in FIRST_ONLY:
        node = node["children"][0]
    return node["value"] if node["type"] == "field" else None


def _reason(error: Exception) -> str:
    """The reason for the client, without any value: values may be confidential."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TooManyStepsError):
        return "it holds too many values, or too much text, for what is done with it here"
    return "what is made of it here would be too large"


# Words for the client.


def describe_parameters(names: Iterable[ContextPath], item: str = "") -> str:
    """Words for the parameters of the client's request that these paths mean.

    Empty if there are none, or if any path is not of the client's request. ``item`` gives words for the list of an
    ``each`` if that list is the client's.
    """
    parts = [describe_parameter(name.root, () if name.field is None else (name.field,), item) for name in names]
    return " and ".join(dict.fromkeys(parts)) if all(parts) else ""


def describe_parameter(root: str, fields: tuple[str, ...], item: str = "") -> str:
    """Words for a parameter of the client's request, such as ``the query parameter "limit"``; empty if it is none."""
    name = ".".join(fields)
    if root == "headers":
        return f'the header "{name.replace("_", "-")}"'
    if root == "item":
        whole = f"an item of {item}" if item else ""
    elif root in ("path", "query"):
        return f'the {root} parameter "{name}"' if name else f"the {root}"
    else:
        whole = "the body" if root == "body" else ""
    return f'the member "{name}" of {whole}' if name and whole else whole


def client_sentence(client_parameter: str, reason: str) -> str:
    """A sentence for the client about one of its parameters; empty if the value is not the client's."""
    return f"{client_parameter[0].upper()}{client_parameter[1:]} {reason}." if client_parameter else ""


def bad_request(detail: str, client_parameter: str, reason: str, *, kind: Kind = Kind.BAD_REQUEST) -> Failure:
    """The failure of a value that cannot be used: status 400 if it is the client's, else that of the kind."""
    return Failure.of(
        kind, detail, status=400 if client_parameter else None, public=client_sentence(client_parameter, reason)
    )
