"""docs/learn: each program prints the output that is shown below it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.process.processes import PROJECT, PYTHON
from tests.support.source.shown_programs import Program, output_of, programs_of

LEARN = PROJECT / "docs" / "learn"
PAGES = sorted(path for path in LEARN.glob("*.md") if path.name != "README.md")
PROGRAMS = [program for page in PAGES for program in programs_of(page) if not program.needs("fastapi", "uvicorn")]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.title)
async def test_a_program_prints_the_output_that_is_shown(program: Program, tmp_path: Path) -> None:
    assert await output_of(program, PYTHON, tmp_path) == program.output


def test_each_chapter_has_programs_and_the_index_lists_it() -> None:
    index = (LEARN / "README.md").read_text()
    titles = {page.read_text().partition("\n")[0].removeprefix("# "): page for page in PAGES}
    assert {int(title.partition(". ")[0]) for title in titles} == set(range(1, len(PAGES) + 1))
    for title, page in titles.items():
        assert programs_of(page)
        number, _, name = title.partition(". ")
        assert f"\n{number}. [{name}]({page.name})\n" in index
