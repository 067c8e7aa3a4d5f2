"""The Chinese documents stand beside the English ones: the same headings by level, the same code, the same commands."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LEARN = PROJECT / "docs" / "learn"
CHAPTERS = sorted(page.name for page in LEARN.glob("*.md") if page.name != "README.md")
PAIRS = [
    (PROJECT / "README.md", PROJECT / "README.zh-CN.md"),
    *((LEARN / name, LEARN / "zh" / name) for name in CHAPTERS),
]
REPOSITORY = "https://umbel.example/umbel/"
_CODE = re.compile(r"^```\w*\n.*?^```$", re.DOTALL | re.MULTILINE)


def heading_levels(text: str) -> list[int]:
    """The levels of the headings, in order. A heading that begins with a number has it in both languages."""
    return [len(marks) for marks in re.findall(r"^(#+) ", _CODE.sub("", text), re.MULTILINE)]


def items_of_sections(text: str) -> list[int]:
    """The number of list items in each section."""
    return [len(re.findall(r"^(?:- |\d+\. )", part, re.MULTILINE)) for part in _CODE.sub("", text).split("\n## ")]


def commands(text: str) -> set[str]:
    """The commands that stand in the text, outside of blocks of code."""
    return set(re.findall(r"`((?:make|umbel|hypercorn|python|pip) [^`]+)`", _CODE.sub("", text)))


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda page: page.name)
def test_a_translation_has_the_headings_the_code_and_the_commands(english: Path, chinese: Path) -> None:
    original, translation = english.read_text(), chinese.read_text()
    assert heading_levels(translation) == heading_levels(original)
    assert items_of_sections(translation) == items_of_sections(original)
    assert _CODE.findall(translation) == _CODE.findall(original)
    assert commands(original) <= commands(translation)
    # A translation may explain a command that the original explains within a block of code.
    assert [command for command in commands(translation) if command not in original] == []


def targets(page: Path) -> set[str]:
    """The files of the project to which a page links, each in English if it is translated."""
    links = re.findall(r"\]\(([^)\s#]+)", page.read_text())
    found = set()
    for link in links:
        path = link.partition("/main/")[2] if link.startswith(REPOSITORY) else link
        if "://" not in path:
            base = PROJECT if path != link else page.parent
            name = os.path.relpath(base / path, PROJECT)
            found.add(name.replace("docs/learn/zh/", "docs/learn/").replace("README.zh-CN.md", "README.md"))
    return found


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda page: page.name)
def test_a_translation_links_to_the_same_files(english: Path, chinese: Path) -> None:
    assert targets(english) - targets(chinese) == set()


def test_the_chinese_chapters_are_those_of_the_english_index() -> None:
    def listed(page: Path) -> list[tuple[str, str]]:
        return re.findall(r"^(\d+)\. \[.*\]\((\w+\.md)\)$", page.read_text(), re.MULTILINE)

    assert {page.name for page in (LEARN / "zh").glob("*.md")} == {*CHAPTERS, "README.md"}
    assert listed(LEARN / "zh" / "README.md") == listed(LEARN / "README.md")
    assert len(listed(LEARN / "README.md")) == len(CHAPTERS)


@pytest.mark.parametrize("page", [chinese for _, chinese in PAIRS], ids=lambda page: page.name)
def test_a_chinese_paragraph_is_one_line_since_a_line_end_would_show_as_a_space(page: Path) -> None:
    lines = _CODE.sub("", page.read_text()).splitlines()
    pairs = [(line, following) for line, following in pairwise(lines) if line and following]
    starts = re.compile(r"- |\d+\. |\||<")  # of an item, a row or a comment
    assert [line for line, following in pairs if not starts.match(following)] == []
