"""All regular expressions of the source, found by its syntax trees, with the methods that are called of each."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import umbel

ROOT = Path(umbel.__file__).parent

_CALLS = frozenset({"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"})
METHODS = frozenset(_CALLS - {"compile"})


class Found(NamedTuple):
    """A call of the module ``re``."""

    place: str
    """File and line."""
    owner: str
    """File and function, ``logs/redact.py:Redactor.__init__``; of a module's own level the file alone."""
    pattern: re.Pattern[Any] | None
    """None where it is made of what only the running function knows."""
    methods: frozenset[str]
    """What is called of it; all of them where that cannot be seen."""


def find_patterns() -> list[Found]:
    """Every call of ``re`` in ``src/umbel``."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
    used = {path: _methods_by_name(tree) for path, tree in trees.items()}
    public: dict[str, set[str]] = {}
    for names in used.values():
        for name, methods in names.items():
            if not name.startswith("_"):
                public.setdefault(name, set()).update(methods)
    found: list[Found] = []
    for path, tree in trees.items():
        imported = _names_of_re(tree)
        if imported:
            found += _in_module(path, tree, imported, {**public, **used[path]})
    return found


def _in_module(
    path: Path, tree: ast.Module, names: tuple[set[str], dict[str, str]], used: dict[str, set[str]]
) -> Iterator[Found]:
    relative = path.relative_to(ROOT).as_posix()
    for call, function, target in _calls(tree, (), None):
        method = _method_of(call.func, names)
        if method is None:
            continue
        methods = frozenset({method}) if method != "compile" else frozenset(used.get(target or "", ())) or METHODS
        owner = f"{relative}:{'.'.join(function)}" if function else relative
        yield Found(f"{relative}:{call.lineno}", owner, _folded(call, path), methods)


def _names_of_re(tree: ast.Module) -> tuple[set[str], dict[str, str]] | None:
    """What the module ``re`` and its functions are called in a module."""
    modules: set[str] = set()
    functions: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "re"}
        elif isinstance(node, ast.ImportFrom) and node.module == "re":
            functions |= {alias.asname or alias.name: alias.name for alias in node.names}
    return (modules, functions) if modules or functions else None


def _method_of(function: ast.expr, names: tuple[set[str], dict[str, str]]) -> str | None:
    modules, functions = names
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in modules:
        return function.attr if function.attr in _CALLS else None
    if isinstance(function, ast.Name):
        method = functions.get(function.id)
        return method if method in _CALLS else None
    return None


def _calls(
    node: ast.AST, function: tuple[str, ...], target: str | None
) -> Iterator[tuple[ast.Call, tuple[str, ...], str | None]]:
    """The calls within a node, each with the functions around it and the name that its value gets."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function = (*function, node.name)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        first = node.targets[0] if isinstance(node, ast.Assign) else node.target
        target = first.id if isinstance(first, ast.Name) else first.attr if isinstance(first, ast.Attribute) else None
        if not isinstance(node.value, ast.Call):
            target = None
    elif isinstance(node, ast.Call):
        yield node, function, target
        target = None
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, function, target)


def _methods_by_name(tree: ast.Module) -> dict[str, set[str]]:
    """For each name, which of a pattern's methods a module takes of something of that name."""
    used: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            used.setdefault(name, set()).add(node.attr)
    return used


def _folded(call: ast.Call, path: Path) -> re.Pattern[Any] | None:
    """The pattern of a call whose arguments the module itself knows."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    flags = next((keyword.value for keyword in call.keywords if keyword.arg == "flags"), None)
    if flags is None and isinstance(call.func, ast.Attribute) and call.func.attr == "compile" and len(call.args) > 1:
        flags = call.args[1]
    try:
        pattern = _value(call.args[0], module.__dict__)
        return re.compile(pattern, 0 if flags is None else _value(flags, module.__dict__))
    except (NameError, AttributeError):
        return None


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<pattern>", "eval"), dict(names))
