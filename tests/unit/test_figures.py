"""``tools/figures.py``: sizes and imports of a small source tree with known figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import cover
from tools.figures import import_figures, lines_of, size_figures

from tests.support.source.source_tree import SourceTree

FILES = {
    "__init__.py": '"""A docstring."""\n',
    "a.py": (
        "# one\n"
        "from . import b  # two\n"
        "\n"
        "class A:\n"
        '    x = 1\n    """Of an attribute,\n    in two lines."""\n'
        "    def f(self):\n"
        '        return "# none"\n'
    ),
    "b.py": "if TYPE_CHECKING:\n    from .a import A\n\ndef g():\n    def h():\n        pass\n    from .sub import c\n",
    "sub/__init__.py": "",
    "sub/c.py": "from .. import b\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    for name, text in FILES.items():
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return SourceTree(tmp_path / "p")


def test_sizes_comments_and_folders_are_counted(tree: SourceTree) -> None:
    found = size_figures(tree)

    assert (found["files"], found["lines"]) == (5, 18)
    assert (found["comment_lines"], found["lines_per_comment_line"], found["docstring_lines"]) == (2, 9.0, 3)
    assert found["file_lines"] == {
        "count": 5,
        "median": 1,
        "maximum": 9,
        "longest": {"a.py": 9, "b.py": 7, "__init__.py": 1, "sub/c.py": 1, "sub/__init__.py": 0},
    }
    assert found["function_lines"]["longest"] == {"b.py:4 g": 4, "a.py:8 A.f": 2, "b.py:5 g.h": 2}
    assert found["folders"] == {"p": 3, "p/sub": 2}
    assert found["large_folders"] == {}


def test_files_with_one_importer_and_circles_are_found(tree: SourceTree) -> None:
    found = import_figures(tree)

    assert found["one_importer_small"] == [
        {"file": "a.py", "lines": 9, "importer": "b.py"},
        {"file": "sub/c.py", "lines": 1, "importer": "b.py"},
    ]
    assert found["circles"] == [["a.py", "b.py", "sub/c.py"]]
    assert found["circles_running"] == [["b.py", "sub/c.py"]]


def test_all_figures_are_printed(tree: SourceTree) -> None:
    request = {
        "files_entered": 2,
        "functions_entered": 3,
        "function_entries": 40,
        "function_entries_per_further_call": 5,
    }
    coverage = {
        "pytest": ["tests/unit"],
        "percent_branches_covered": 50.04,
        "num_branches": 8,
        "percent_statements_covered": 100.0,
        "num_statements": 18,
    }

    printed = list(lines_of({**size_figures(tree), **import_figures(tree), "request": request, "coverage": coverage}))

    assert "files                 5, 18 lines" in printed
    assert "lines per function    median 2, maximum 4 (3 functions); the longest:" in printed
    assert "      4  b.py:4 g" in printed
    assert "circles of imports    1, 3 files:" in printed
    assert printed[-3:] == [
        "a request enters      3 functions in 2 files of Umbel",
        "function entries      40 with Python's and libraries', of a request of one call; 5 of each further call",
        "coverage              50.0 % of 8 branches, 100.0 % of 18 statements, by pytest tests/unit",
    ]


def test_missing_coverage_totals_are_an_error_that_names_make_cover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cover, "TOTALS", tmp_path / "totals.json")
    with pytest.raises(SystemExit, match="make cover"):
        cover.totals()
