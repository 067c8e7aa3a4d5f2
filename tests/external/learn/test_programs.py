"""docs/learn: each program with FastAPI or uvicorn prints the output that is shown below it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.external import ENVIRONMENTS

from tests.support.process.processes import PROJECT
from tests.support.source.shown_programs import Program, output_of, programs_of

PROGRAMS = [
    program
    for page in sorted((PROJECT / "docs" / "learn").glob("*.md"))
    for program in programs_of(page)
    if program.needs("fastapi", "uvicorn")
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.title)
async def test_a_program_prints_the_output_that_is_shown(program: Program, tmp_path: Path) -> None:
    assert await output_of(program, str(ENVIRONMENTS / "learn" / "bin" / "python"), tmp_path) == program.output
