"""``tests/support/source/source_tree.py``: which imports and circles it finds."""

from __future__ import annotations

import ast

from tests.support.source.source_tree import Import, circles, imports_of, reached, targets_of


def test_only_the_branch_that_type_checkers_take_is_typing_only() -> None:
    text = "if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b\nif not TYPE_CHECKING:\n    import c\n"

    found = sorted(imports_of(ast.parse(text), "p"))

    assert [(found.module, found.typing_only) for found in found] == [("a", True), ("b", False), ("c", False)]


def test_relative_imports_are_resolved_from_the_package() -> None:
    text = "class A:\n    from . import x\nfrom .y import z as q\nfrom ... import v\n"

    found = sorted(imports_of(ast.parse(text), "p.q.r"))

    assert [(found.module, found.names) for found in found] == [("p.q.r", ("x",)), ("p.q.r.y", ("z",)), ("p", ("v",))]


def test_an_imported_name_refers_to_a_module_if_there_is_one_or_else_to_its_package() -> None:
    assert targets_of(Import(1, "p", ("x", "f", "g"), False), {"p", "p.x"}) == {"p", "p.x"}
    assert targets_of(Import(1, "p.x", (), False), {"p", "p.x"}) == {"p.x"}


def test_a_circle_is_a_set_of_nodes_that_reach_each_other() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}, "g": {"g"}}

    assert circles(graph) == [["a", "b", "c"], ["d", "e"]]
    assert reached(graph, "f") == {"a", "b", "c", "d", "e"}
    assert reached(graph, "d") == {"d", "e"}
