"""Rules for the source in ``src`` and the tests: allowed imports, lengths, forbidden texts.

Existing violations are listed in the tables ``…_MAX`` with their number. The number is an upper limit, and an entry
without violations must be deleted.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

import umbel
from tests.support.source.source_tree import Edge, SourceTree, circles, graph_of, imports_of, reached

SRC = Path(umbel.__file__).parent

FILES_MAX = 15
"""The bound on the files of one folder."""

# The layers from the bottom up. A unit is a package of umbel. It may import only from lower rows, which stand before
# its own in this list, and not from other units of its row; within a unit all imports are allowed. Some units do not
# exist yet.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"net"}),
    frozenset({"core"}),
    frozenset({"http1"}),
    frozenset({"config"}),
    frozenset({"policy"}),
    frozenset({"upstream", "server", "logs", "composition"}),
    frozenset({"auth", "limits", "cache", "admin"}),
    frozenset({"observe"}),
    frozenset({"gateway"}),
    frozenset({"supervisor", "testing", "simulate"}),
    frozenset({"demo", "labs"}),
    frozenset({"cli", "asgi"}),
    frozenset({"umbel", "__main__"}),
)
ROW_OF = {unit: row for row, units in enumerate(ROWS) for unit in units}

ARROWS_MAX: dict[str, int] = {}
"""Imports against the rows, by pair of units; 0 if a unit reaches the other only through a third one."""

CIRCLES_MAX: dict[str, int] = {}
"""The number of modules of each unit in circles of imports."""

CIRCLE_ALLOWED_IN = "umbel.server.http2"
"""The only package with an allowed circle: a connection and its streams."""

LIBRARIES_MAX = {
    "admin -> hypercorn": 3,  # It runs `umbel.server`, whose settings are Hypercorn's.
    "observe -> hypercorn": 3,  # The thread of an admin side, and the console of a program, which runs one.
    "core -> httpx": 2,  # The adapters for httpx's messages and transports, used by `upstream` and `composition`.
    "server -> pydantic": 2,
}
"""The number of modules of a unit that import, directly or indirectly, a library that the unit must not load."""

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 60
MARKS = ("TO" + "DO", "FIX" + "ME", "XX" + "X")


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    return SourceTree(SRC)


def unit_of(module: str) -> str:
    """Return the unit of a module: its package below umbel, or the module itself at the top level."""
    return module.split(".")[1] if "." in module else module


def libraries_kept_out(unit: str) -> frozenset[str]:
    """Return the libraries that a unit must not load, because they take long to import."""
    out = set()
    if ROW_OF[unit] < ROW_OF["gateway"]:
        out |= {"quart", "quart_trio"} | ({"hypercorn"} if unit != "server" else set())
    if unit in {"net", "core", "http1", "policy", "server", "logs", "admin", "observe"}:
        out |= {"httpx", "pydantic"}
    return frozenset(out)


def against_rows(edges: Iterable[Edge]) -> dict[str, list[str]]:
    """Return the imports against the rows, by pair of units; empty for a pair that only a chain of imports connects."""
    found: dict[str, list[str]] = {}
    modules = graph_of(edges)
    for importer in modules:
        for end in reached(modules, importer):
            unit, other = unit_of(importer), unit_of(end)
            if unit != other and ROW_OF[other] >= ROW_OF[unit]:
                found.setdefault(f"{unit} -> {other}", [])
    for edge in edges:
        if (unit := unit_of(edge.importer)) != (other := unit_of(edge.imported)) and ROW_OF[other] >= ROW_OF[unit]:
            found[f"{unit} -> {other}"].append(f"{edge.importer}:{edge.line} imports {edge.imported}")
    return found


def above_bounds(found: Mapping[str, Sequence[str]], bounds: Mapping[str, int]) -> list[str]:
    """Return a message for each key found more often than its limit, and for each limit whose key is not found."""
    more = [
        f"{key}: {len(places)}, may be {bounds.get(key, 'none')}: {', '.join(places)}"
        for key, places in sorted(found.items())
        if key not in bounds or len(places) > bounds[key]
    ]
    return more + [f"{key}: nothing of it is left, delete the entry" for key in sorted(bounds) if key not in found]


def test_every_module_belongs_to_a_unit_with_a_row(tree: SourceTree) -> None:
    assert {unit_of(module) for module in tree.paths} - set(ROW_OF) == set()


def test_a_unit_imports_only_from_rows_below_its_own(tree: SourceTree) -> None:
    assert above_bounds(against_rows(tree.edges), ARROWS_MAX) == []


def test_only_the_modules_of_an_http2_connection_import_each_other_in_a_circle(tree: SourceTree) -> None:
    found: dict[str, list[str]] = {}
    for circle in circles(graph_of(tree.edges)):
        if not all(module.startswith(f"{CIRCLE_ALLOWED_IN}.") for module in circle):
            found.setdefault(" and ".join(sorted({unit_of(module) for module in circle})), []).extend(circle)
    assert above_bounds(found, CIRCLES_MAX) == []


def test_a_unit_does_not_load_the_libraries_that_it_must_not_load(tree: SourceTree) -> None:
    running = graph_of(edge for edge in tree.edges if not edge.typing_only)
    found: dict[str, list[str]] = {}
    for module in tree.paths:
        libraries = {library for end in {module, *reached(running, module)} for library in tree.libraries_of(end)}
        for library in sorted(libraries & libraries_kept_out(unit_of(module))):
            found.setdefault(f"{unit_of(module)} -> {library}", []).append(module)
    assert above_bounds(found, LIBRARIES_MAX) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from ..upstream import pool", {"composition -> upstream": ["x:1 imports umbel.upstream.pool"]}),
        ("from ..upstream import Pool", {"composition -> upstream": ["x:1 imports umbel.upstream"]}),
        ("from ..upstream.pool import Pool", {"composition -> upstream": ["x:1 imports umbel.upstream.pool"]}),
        ("import umbel.gateway", {"composition -> gateway": ["x:1 imports umbel.gateway"]}),
        ("from .. import gateway", {"composition -> gateway": ["x:1 imports umbel.gateway"]}),
        ("from umbel import Umbel", {"composition -> umbel": ["x:1 imports umbel"]}),
        ("def f():\n    from ..gateway import f", {"composition -> gateway": ["x:2 imports umbel.gateway"]}),
        (
            "try:\n    pass\nexcept OSError:\n    import umbel.gateway",
            {"composition -> gateway": ["x:4 imports umbel.gateway"]},
        ),
        (
            "if TYPE_CHECKING:\n    from ..upstream import pool",
            {"composition -> upstream": ["x:2 imports umbel.upstream.pool"]},
        ),
        ("from ..policy import rises", {"composition -> gateway": [], "policy -> gateway": ["rises"]}),
        ("from ..policy import retry\nfrom . import y\nfrom .y import f\nfrom ..core import model\nimport trio", {}),
    ],
)
def test_each_form_of_import_is_detected(statement: str, said: dict[str, list[str]], tmp_path: Path) -> None:
    texts = {
        "composition/x": statement,
        "policy/rises": "import umbel.gateway" if "rises" in statement else "",
        **dict.fromkeys(("core/model", "composition/y", "policy/retry", "upstream/pool"), ""),
        **dict.fromkeys(("__init__", "upstream/__init__", "gateway/__init__", "core/__init__"), ""),
    }
    for name, text in texts.items():
        path = tmp_path / "umbel" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    found = against_rows(SourceTree(tmp_path / "umbel").edges)

    assert found == {
        pair: [
            "umbel.policy.rises:1 imports umbel.gateway" if place == "rises" else f"umbel.composition.{place}"
            for place in places
        ]
        for pair, places in said.items()
    }


def test_a_limit_that_is_exceeded_or_no_longer_needed_is_reported() -> None:
    assert above_bounds({"a": ["1"], "b": []}, {"a": 2, "b": 0}) == []
    assert above_bounds({"a": ["1", "2"], "b": []}, {"a": 1, "c": 1}) == [
        "a: 2, may be 1: 1, 2",
        "b: 0, may be none: ",
        "c: nothing of it is left, delete the entry",
    ]


IMPURE = frozenset({"trio", "time", "datetime", "socket", "os", "asyncio", "anyio", "httpx"})


def impurities(text: str) -> list[str]:
    """Return the places where a policy uses a clock, I/O, trio, or randomness that is no argument."""
    parsed = ast.parse(text)
    found = [
        f"{found.line}: {found.module}"
        for found in sorted(imports_of(parsed, "umbel.policy"))
        if found.module.split(".")[0] in IMPURE
    ]
    for node in ast.walk(parsed):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            found += [f"{node.lineno}: random.{alias.name}" for alias in node.names if alias.name != "Random"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            found += [f"{node.lineno}: random.{node.attr}"] if node.attr != "Random" else []
    return found


def test_a_policy_has_no_clock_no_io_and_no_randomness_of_its_own(tree: SourceTree) -> None:
    found = {module: impurities(text) for module, text in tree.texts.items() if unit_of(module) == "policy"}
    assert {module: places for module, places in found.items() if places} == {}


def test_impurities_are_detected() -> None:
    text = "import time\nfrom random import Random, choice\nimport random\nrandom.random()\nrandom.Random(1)\n"
    assert impurities(text) == ["1: time", "2: random.choice", "4: random.random"]


def test_a_folder_of_the_source_has_at_most_fifteen_files() -> None:
    files = Counter(file.parent for file in SRC.rglob("*") if file.is_file() and file.suffix != ".pyc")
    assert {str(folder.relative_to(SRC)): count for folder, count in files.items() if count > FILES_MAX} == {}


def test_files_and_functions_keep_their_length_limits_and_have_no_marks_for_later(tree: SourceTree) -> None:
    lengths = {module: text.count("\n") for module, text in tree.texts.items()}
    assert {module: length for module, length in lengths.items() if length > FILE_LINES_MAX} == {}
    assert [function for function in tree.functions if function.lines > FUNCTION_LINES_MAX] == []
    assert [(module, mark) for module, text in tree.texts.items() for mark in MARKS if mark in text] == []
