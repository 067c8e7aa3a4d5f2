"""The source tree of a package, read with ``ast``: its functions, its imports, and the import graph of its modules.

Modules have dotted names. An import of ``a.b`` also runs ``a/__init__.py``, but the graph has no edge for that.
Otherwise every package whose ``__init__`` imports from one of its modules would be a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One import statement for a module, with the names that follow ``from … import``."""

    line: int
    module: str
    names: tuple[str, ...]
    typing_only: bool


class Edge(NamedTuple):
    """An import of one module of a tree by another."""

    importer: str
    imported: str
    line: int
    typing_only: bool


class Function(NamedTuple):
    """A function in a file. Its lines are without decorators, and its name has the classes and functions around it."""

    module: str
    line: int
    name: str
    lines: int


def imports_of(tree: ast.Module, package: str) -> Iterator[Import]:
    """Yield every import of a file of ``package``, also those within functions, with absolute module names."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, typing_only = waiting.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, (), typing_only)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(node.lineno, module, tuple(alias.name for alias in node.names), typing_only)
        else:
            for name in ("body", "handlers", "cases", "orelse", "finalbody"):
                inner = getattr(node, name, None)
                if isinstance(inner, list):  # the body of a lambda is an expression, which holds no import
                    within = typing_only or (name == "body" and _asks_for_types(node))
                    waiting += [(statement, within) for statement in inner]


def _asks_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def functions_of(tree: ast.Module, module: str) -> Iterator[Function]:
    """Yield every function and method of a file, also nested ones."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, around = waiting.pop()
        for child in ast.iter_child_nodes(node):
            name = around
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{around}.{child.name}" if around else child.name
                if not isinstance(child, ast.ClassDef):
                    yield Function(module, child.lineno, name, (child.end_lineno or 0) - child.lineno + 1)
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                waiting.append((child, name))


def targets_of(found: Import, modules: Collection[str]) -> set[str]:
    """Return the modules that an import refers to.

    ``from package import name`` refers to the module ``package.name`` if ``modules`` has it, otherwise to ``package``.
    """
    if not found.names:
        return {found.module}
    inner = {f"{found.module}.{name}" for name in found.names}
    return {name if name in modules else found.module for name in inner}


class SourceTree:
    """The Python files of one package on disk: their paths and texts, functions and imports by module."""

    def __init__(self, root: Path) -> None:
        """Read and parse every file below ``root``, the folder of the package. Raises SyntaxError and OSError."""
        self.root = root
        self.paths = {self._module_of(path): path for path in sorted(root.rglob("*.py"))}
        self.texts = {module: path.read_text(encoding="utf-8") for module, path in self.paths.items()}
        self.imports: dict[str, list[Import]] = {}
        self.functions: list[Function] = []
        for module, text in self.texts.items():
            # The syntax tree is not kept, because the garbage collector would visit all its nodes in each collection.
            parsed = ast.parse(text)
            self.imports[module] = list(imports_of(parsed, self._package_of(module)))
            self.functions += functions_of(parsed, module)
        self.edges = [
            Edge(importer, imported, found.line, found.typing_only)
            for importer, imports in self.imports.items()
            for found in imports
            for imported in sorted(targets_of(found, self.paths))
            if imported in self.paths and imported != importer
        ]

    def _module_of(self, path: Path) -> str:
        parts = (self.root.name, *path.relative_to(self.root).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _package_of(self, module: str) -> str:
        return module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]

    def file_of(self, module: str) -> str:
        """Return the path of a module's file below the root."""
        return self.paths[module].relative_to(self.root).as_posix()

    def libraries_of(self, module: str) -> set[str]:
        """Return the top-level names of the modules from outside the tree that a module imports."""
        return {found.module.partition(".")[0] for found in self.imports[module]} - {self.root.name}


def graph_of(edges: Iterable[Edge]) -> dict[str, set[str]]:
    """Return the imported modules by importer."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge.importer, set()).add(edge.imported)
    return graph


def reached(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    """Return all modules that ``start`` imports, directly or indirectly; ``start`` itself only if it is in a circle."""
    seen: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, ())
    return seen


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the strongly connected components with two or more nodes, the largest first."""
    ends = {node: reached(graph, node) for node in graph}
    found = {frozenset(end for end in ends[node] if node in ends.get(end, ())) for node in graph}
    return sorted((sorted(circle) for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), circle))
