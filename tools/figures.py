"""Figures of the structure of ``src/umbel``: ``make figures``.

Sizes of files and functions, comments, folders, files with one importer, circular imports, and what a request enters:
files and functions of Umbel, and all functions including those of Python and of libraries. ``--json`` prints JSON,
``--coverage`` adds the coverage that ``make cover`` measured last.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import statistics
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio
from tests.support.process.function_entries import count_entries
from tests.support.source.source_tree import Edge, SourceTree, circles, graph_of
from tools import cover

PACKAGE = Path(__file__).parents[1] / "src" / "umbel"
LONGEST = 5
FOLDER_FILES_MAX = 15
"""Folders with more files are named."""
SMALL_LINES = 100
"""Files below, if only one other imports them, are named."""
MEASURE_S_MAX = 60.0

Figures = dict[str, Any]


def comment_lines(text: str) -> int:
    """Return the number of lines with a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def docstring_lines(text: str) -> int:
    """Return the number of lines of strings that stand alone: docstrings, and those of attributes."""
    return sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def size_figures(tree: SourceTree) -> Figures:
    """Return lines and comments, and the lengths of files, functions and folders."""
    files = {tree.file_of(module): text.count("\n") for module, text in tree.texts.items()}
    functions = {
        f"{tree.file_of(function.module)}:{function.line} {function.name}": function.lines
        for function in tree.functions
    }
    folders = Counter(str(Path(tree.root.name, file).parent) for file in files)
    lines, comments = sum(files.values()), sum(comment_lines(text) for text in tree.texts.values())
    return {
        "files": len(files),
        "lines": lines,
        "comment_lines": comments,
        "lines_per_comment_line": round(lines / max(comments, 1), 1),
        "docstring_lines": sum(docstring_lines(text) for text in tree.texts.values()),
        "file_lines": _spread(files),
        "function_lines": _spread(functions),
        "folders": dict(sorted(folders.items())),
        "large_folders": {folder: count for folder, count in folders.most_common() if count > FOLDER_FILES_MAX},
    }


def _spread(lengths: dict[str, int]) -> Figures:
    longest = sorted(lengths.items(), key=lambda item: (-item[1], item[0]))[:LONGEST]
    return {
        "count": len(lengths),
        "median": statistics.median(lengths.values()),
        "maximum": longest[0][1],
        "longest": dict(longest),
    }


def import_figures(tree: SourceTree) -> Figures:
    """Return files with one importer, and circles with and without imports for types only."""
    importers: dict[str, set[str]] = {}
    for edge in tree.edges:
        importers.setdefault(edge.imported, set()).add(edge.importer)
    alone = {
        module: importer
        for module, (importer, *others) in importers.items()
        if not others and tree.paths[module].name != "__init__.py"
    }
    return {
        "one_importer": len(alone),
        "one_importer_small": [
            {"file": tree.file_of(module), "lines": lines, "importer": tree.file_of(importer)}
            for module, importer in sorted(alone.items())
            if (lines := tree.texts[module].count("\n")) < SMALL_LINES
        ],
        "circles": _circles(tree, tree.edges),
        "circles_running": _circles(tree, [edge for edge in tree.edges if not edge.typing_only]),
    }


def _circles(tree: SourceTree, edges: Sequence[Edge]) -> list[list[str]]:
    return [[tree.file_of(module) for module in circle] for circle in circles(graph_of(edges))]


def request_figures() -> Figures:
    """Serve requests in a process of its own; return what each of them enters. Raises TooSlowError after a minute."""

    async def measure(directory: Path) -> Figures:
        with trio.fail_after(MEASURE_S_MAX):
            entries = await count_entries(directory)
        functions = entries.entered(PACKAGE)
        return {
            "files_entered": len({file for file, _, _ in functions}),
            "functions_entered": len(functions),
            "function_entries": round(entries.per_request),
            "function_entries_per_further_call": round(entries.per_further_call),
        }

    with tempfile.TemporaryDirectory() as directory:
        return trio.run(measure, Path(directory))


def lines_of(figures: Figures) -> Iterator[str]:
    """Yield the figures for people, line by line."""
    yield f"files                 {figures['files']}, {figures['lines']} lines"
    yield f"comment lines         {figures['comment_lines']}, one in {figures['lines_per_comment_line']} lines"
    yield f"docstring lines       {figures['docstring_lines']}"
    for name in ("file", "function"):
        spread = figures[f"{name}_lines"]
        yield (
            f"lines per {name:<12}median {spread['median']:g}, maximum {spread['maximum']} ({spread['count']} {name}s);"
            " the longest:"
        )
        yield from (f"  {lines:5}  {place}" for place, lines in spread["longest"].items())
    yield f"folders               {len(figures['folders'])}; with more than {FOLDER_FILES_MAX} files:"
    yield from (f"  {count:5}  {folder}" for folder, count in figures["large_folders"].items())
    small = figures["one_importer_small"]
    yield f"one importer only     {figures['one_importer']} files; {len(small)} of them under {SMALL_LINES} lines:"
    yield from (f"  {file['lines']:5}  {file['file']}, imported by {file['importer']}" for file in small)
    for name, title in (("circles", "circles of imports   "), ("circles_running", "without types only   ")):
        yield f"{title} {len(figures[name])}, {sum(map(len, figures[name]))} files" + (":" if figures[name] else "")
        yield from (f"  {len(circle):5}  {' '.join(circle)}" for circle in figures[name])
    request = figures["request"]
    yield f"a request enters      {request['functions_entered']} functions in {request['files_entered']} files of Umbel"
    yield (
        f"function entries      {request['function_entries']} with Python's and libraries', of a request of one call; "
        f"{request['function_entries_per_further_call']} of each further call"
    )
    if "coverage" in figures:
        total = figures["coverage"]
        yield (
            f"coverage              {total['percent_branches_covered']:.1f} % of {total['num_branches']} branches, "
            f"{total['percent_statements_covered']:.1f} % of {total['num_statements']} statements,"
            f" by {' '.join(['pytest', *total['pytest']])}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make figures", description="Print the figures of the structure of src/umbel."
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.add_argument("--coverage", action="store_true", help="print what make cover measured last too")
    options = parser.parse_args()
    coverage = {"coverage": cover.totals()} if options.coverage else {}  # First: it exits if there is none.
    tree = SourceTree(PACKAGE)
    figures = {**size_figures(tree), **import_figures(tree), "request": request_figures(), **coverage}
    print(json.dumps(figures, indent=2) if options.json else "\n".join(lines_of(figures)))


if __name__ == "__main__":
    main()
