"""The documents: each part of an ``umbel.toml`` that is shown is valid. Recipes are also served, in tests/e2e/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from umbel import load

PROJECT = Path(__file__).parents[2]
PAGES = [
    PROJECT / "README.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
    *sorted((PROJECT / "examples").rglob("*.md")),
]
_BLOCK = re.compile(r'^```toml(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_OTHER_FILES = ("# hypercorn.toml", "# keys.toml", "[keys.")
"""Beginnings of lines in blocks that are other files."""
ROUTE = '\n[[routes]]\npath = "/added"\nrespond.text = "ok"\n'


def shown() -> list[tuple[str, str]]:
    """Each block with the page and its number there; one that is to be appended follows the one before it."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        before = ""
        for number, (title, block) in enumerate(_BLOCK.findall(page.read_text())):
            text = before + block if title.endswith("(append)") else block
            before = text
            if not any(line.startswith(_OTHER_FILES) for line in text.splitlines()):
                found.append((f"{page.relative_to(PROJECT)}-{number}", text))
    return found


CONFIGS = dict(shown())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_is_shown_can_be_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CONFIGS[name]
    for variable in re.findall(r"\$\{([A-Z_]+)\}", text):
        monkeypatch.setenv(variable, "value-of-a-variable-that-is-long-enough")
    for file in re.findall(r"\$\{file:([^}]*)\}", text):
        (tmp_path / file).write_text("secret\n")
    for pattern in re.findall(r'^include = \["([^"]*)"\]', text, re.MULTILINE):
        included = tmp_path / pattern.replace("*", "included")
        included.parent.mkdir(exist_ok=True)
        included.write_text("")
    (tmp_path / "umbel.toml").write_text(text if "[[routes]]" in text else text + ROUTE)
    assert load(tmp_path / "umbel.toml").routes


def test_most_documents_show_configurations() -> None:
    assert len(CONFIGS) > 60
