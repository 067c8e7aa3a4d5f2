"""Members of a table that an expression reads as lists, found in the syntax tree.

A form has no types: a field that is sent once may be a text or a list of one item. The expressions decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .fault import FIRST_ONLY, SAME_VALUE
from .functions import FUNCTIONS, argument_types

Node = Mapping[str, Any]

_OF_LISTS = frozenset({"projection", "filter_projection", "flatten", "index_expression"})
"""Nodes whose first child must be a list: ``a[*]``, ``a[?x]``, ``a[]``, ``a[0]`` and ``a[1:]``."""


def members_read_as_lists(node: Node, table: str, *, as_list: bool = False) -> Iterator[str]:
    """Yield the members of ``table`` that an expression uses as lists: ``tags`` for ``body.tags[*]``.

    These are operands of brackets, and arguments of functions that take only lists (``join``, ``sort``, …). With
    ``as_list`` the value of the whole expression is used as a list too.
    """
    kind, children = node["type"], node["children"]
    if kind == "subexpression" and children[0]["type"] == "field":
        if children[0]["value"] == table:
            # The parser makes ``body.(tags[*])`` of ``body.tags[*]``, and one node with three children of ``body.a.b``.
            member = _without_brackets(children[1])
            if member["type"] == "field" and (member is not children[1] or (as_list and len(children) == 2)):
                yield member["value"]
        return
    if kind not in SAME_VALUE and kind not in FIRST_ONLY:
        return
    passes_on = kind in ("or_expression", "and_expression")  # The value of the node is the value of a child.
    for place, child in enumerate(children):
        # Other children are evaluated on parts of values, where the name of the table means a member.
        if isinstance(child, dict) and child["type"] != "expref" and (kind in SAME_VALUE or place == 0):
            wanted = passes_on and as_list
            wanted = wanted or (kind in _OF_LISTS and place == 0)
            wanted = wanted or (kind == "function_expression" and _takes_lists(node["value"], place))
            wanted = wanted or (kind == "pipe" and place == 0 and _begins_with_list(children[1]))
            yield from members_read_as_lists(child, table, as_list=wanted)


def _without_brackets(node: Node) -> Node:
    """The list to which the brackets of an expression apply: ``tags`` of ``tags[*][0]``."""
    while node["type"] in _OF_LISTS:
        node = node["children"][0]
    return node


def _takes_lists(function: str, place: int) -> bool:
    types = argument_types(function, place) if function in FUNCTIONS.FUNCTION_TABLE else ()
    return any(each.startswith("array") for each in types) and all(each.startswith(("array", "null")) for each in types)


def _begins_with_list(node: Node) -> bool:
    """Whether an expression after a pipe takes a list, such as ``[0]``."""
    base = _without_brackets(node)
    return base is not node and base["type"] in ("current", "identity")
