"""The house rules that a machine can see: who imports whom, how long things are, what must not stand in ``src``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import umbel

SRC = Path(umbel.__file__).parent

# A row imports only rows above it; the units of a row never import each other, and within a unit anything goes.
# Units that come with later work stand here already.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"net"}),
    frozenset({"foundation"}),
    frozenset({"policy", "config"}),
    frozenset({"upstream", "logs", "composition"}),
    frozenset({"observe"}),
    frozenset({"server"}),
    frozenset({"gateway", "simulate"}),
    frozenset({"supervisor"}),
    frozenset({"asgi", "demo"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
FOUNDATION = frozenset({"kinds", "errors", "model", "events", "problem", "messages", "core", "charsets", "regular"})
ROW_OF = {unit: row for row, units in enumerate(ROWS) for unit in units}

# What makes a program heavy: only the inbound side may import it.
FRAMEWORK = frozenset({"quart", "quart_trio", "hypercorn"})
FIRST_WITH_FRAMEWORK = ROW_OF["server"]

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 60
MARKS = ("TO" + "DO", "FIX" + "ME", "XX" + "X")


class Import(NamedTuple):
    """One imported module, as it stands in a file."""

    line: int
    module: str
    typing_only: bool


def unit_of(module: str) -> str:
    """The unit of a dotted module name within umbel: its package, or one of the modules at the top."""
    name = module.split(".")[1]
    return "foundation" if name in FOUNDATION else name


def imports_of(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import of a file of ``package``, with relative names resolved."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) in typing_only)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "umbel":  # from . import model: the names are modules
                for alias in node.names:
                    yield Import(node.lineno, f"umbel.{alias.name}", id(node) in typing_only)
            else:
                yield Import(node.lineno, module, id(node) in typing_only)


def files() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a file within umbel, such as ``config.load``."""
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


@pytest.mark.parametrize("path", [path for path in files() if path != SRC / "__init__.py"], ids=name_of)
def test_a_file_imports_only_from_rows_above_its_own(path: Path) -> None:
    relative = path.relative_to(SRC)
    unit = unit_of(f"umbel.{name_of(path)}")
    assert unit in ROW_OF, f"{unit} has no row: give it one"
    assert broken_arrows(unit, ".".join(["umbel", *relative.parts[:-1]]), path.read_text(encoding="utf-8")) == []


def broken_arrows(unit: str, package: str, text: str) -> list[str]:
    """The imports in ``text``, a file of ``unit`` in ``package``, that the rows do not allow."""
    found = []
    for line, module, typing_only in imports_of(ast.parse(text), package):
        top, _, rest = module.partition(".")
        if top in FRAMEWORK and ROW_OF[unit] < FIRST_WITH_FRAMEWORK:
            found.append(f"{line}: {unit} imports {top}")
        elif top == "umbel":
            other = unit_of(module) if rest else "the façade"
            highest = ROW_OF[unit] if typing_only else ROW_OF[unit] - 1
            if other != unit and ROW_OF.get(other, len(ROWS)) > highest:
                found.append(f"{line}: {unit} imports {other}")
    return found


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from ..upstream import from_config", ["1: composition imports upstream"]),
        ("from ..gateway.app import Umbel", ["1: composition imports gateway"]),
        ("import umbel.server", ["1: composition imports server"]),
        ("from .. import logs", ["1: composition imports logs"]),
        ("from umbel import Umbel", ["1: composition imports Umbel"]),
        ("import quart_trio", ["1: composition imports quart_trio"]),
        ("def f():\n    from ..cli import main", ["2: composition imports cli"]),
        ("if TYPE_CHECKING:\n    from ..gateway import app", ["2: composition imports gateway"]),
        ("if TYPE_CHECKING:\n    from ..upstream import pool", []),
        ("from ..config.schema import Config", []),
        ("from . import plan\nfrom .dag import Plan\nfrom .. import model", []),
    ],
)
def test_the_walk_sees_every_way_to_import(statement: str, said: list[str]) -> None:
    assert broken_arrows("composition", "umbel.composition", statement) == said


def neighbours(text: str, package: str, siblings: set[str]) -> set[str]:
    """Whom of ``siblings`` a file of ``package`` imports, be it for types alone."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found & siblings


def circle_in(texts: dict[str, str]) -> list[str]:
    """Files, by their dotted names, that import each other in a circle; empty if none do."""
    graph = {name: neighbours(text, name.rpartition(".")[0], set(texts)) for name, text in texts.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_files_of_the_gateway_import_each_other_in_a_circle() -> None:
    paths = [path for path in (SRC / "gateway").rglob("*.py") if path.name != "__init__.py"]
    assert circle_in({f"umbel.{name_of(path)}": path.read_text(encoding="utf-8") for path in paths}) == []


@pytest.mark.parametrize(
    ("text", "is_circle"),
    [
        ("from .b import name", True),
        ("from . import b", True),
        ("if TYPE_CHECKING:\n    from ..gateway.b import name", True),
        ("from .c import name", False),
    ],
)
def test_the_look_for_circles_sees_every_way_to_import(text: str, is_circle: bool) -> None:
    texts = {"umbel.gateway.a": text, "umbel.gateway.b": "from .a import other", "umbel.gateway.c": ""}
    assert bool(circle_in(texts)) is is_circle


IMPURE = frozenset({"trio", "time", "datetime", "socket", "os", "asyncio", "anyio", "httpx"})


def impurities(text: str) -> list[str]:
    """What a decision must not lean on: a clock, I/O, trio, or randomness that nobody handed in."""
    tree = ast.parse(text)
    found = [
        f"{line}: {module}" for line, module, _ in imports_of(tree, "umbel.policy") if module.split(".")[0] in IMPURE
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            found += [f"{node.lineno}: random.{alias.name}" for alias in node.names if alias.name != "Random"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            found += [f"{node.lineno}: random.{node.attr}"] if node.attr != "Random" else []
    return found


@pytest.mark.parametrize("path", sorted((SRC / "policy").glob("*.py")), ids=name_of)
def test_a_policy_has_no_clock_no_io_and_no_randomness_of_its_own(path: Path) -> None:
    assert impurities(path.read_text(encoding="utf-8")) == []


def test_the_look_for_impurities_finds_them() -> None:
    text = "import time\nfrom random import Random, choice\nimport random\nrandom.random()\nrandom.Random(1)\n"
    assert impurities(text) == ["1: time", "2: random.choice", "4: random.random"]


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_a_file_and_its_functions_are_short_and_nothing_in_it_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES_MAX
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    assert [(name, length) for name, length in lengths if length > FUNCTION_LINES_MAX] == []
    assert [mark for mark in MARKS if mark in text] == []
