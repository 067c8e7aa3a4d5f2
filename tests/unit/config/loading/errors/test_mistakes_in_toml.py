"""Messages about files that are no TOML.

Each entry of the table has the text of a file and the exact messages about its mistakes.
"""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import UPSTREAM, mistakes

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "a value is missing": (
        "x = \n",
        ["umbel.toml:1: is not TOML: there is no value here; write texts in quotes, at column 5"],
    ),
    "a string is not closed": (
        UPSTREAM + '[server]\nmax_body = "1MB\n',
        ["umbel.toml:4: is not TOML: a text has no closing quote on its line, at column 16"],
    ),
    "a list is not closed": (
        'include = ["a",\n',
        ["umbel.toml:1: is not TOML: the file ends where a value is expected"],
    ),
    "a line is no statement": (
        "hello\n",
        ["umbel.toml:1: is not TOML: expected '=' after a key in a key/value pair, at column 6"],
    ),
    "a key is given twice": (
        '[server]\nmax_body = "1MB"\nmax_body = "2MB"\n',
        ["umbel.toml:3: is not TOML: this key is already set, at column 17"],
    ),
    "a table is given twice": (
        UPSTREAM + "[upstreams.u]\n",
        ["umbel.toml:3: is not TOML: [upstreams.u] is already defined, at column 13"],
    ),
    "an inline table is extended": (
        'upstreams.u = { urls = ["http://h"] }\n[upstreams.u.tls]\nca = "x"\n',
        ["umbel.toml:2: is not TOML: [upstreams.u.tls] is already defined, at column 17"],
    ),
    "a control character": (
        'include = ["a\x00"]\n',
        ["umbel.toml:1: is not TOML: illegal character '\\x00', at column 14"],
    ),
    "a bare carriage return": (
        "a = 1\rb = 2\n",
        ["umbel.toml:1: is not TOML: expected newline or end of document after a statement, at column 6"],
    ),
    "an unknown escape": (
        '[upstreams.u]\nurls = ["http:\\h"]\n',
        ["umbel.toml:2: is not TOML: unescaped '\\' in a string, at column 17"],
    ),
    "a number of 5,000 digits": (
        "[server]\nmax_body = " + "9" * 5000 + "\n",
        ["umbel.toml:2: has a number with too many digits"],
    ),
    "a list 5,000 deep and not closed": ("x = " + "[" * 5000, ["umbel.toml: is nested deeper than 100 levels"]),
    "a list 500 deep": (
        "x = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        ["umbel.toml: is nested deeper than 100 levels"],
    ),
    "a key of 2,000 parts": (".".join("a" * 2_000) + " = 1", ["umbel.toml: is nested deeper than 100 levels"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(kind: str, tmp_path: Path) -> None:
    text, lines = MISTAKES[kind]
    assert mistakes(tmp_path, text) == lines
