"""Programs that a document shows, each with the output that stands below it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.support.process.processes import ended

_PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Program(NamedTuple):
    """A whole program."""

    page: str
    code: str
    output: str
    """Its stdout and stderr."""

    @property
    def title(self) -> str:
        """The page, and a number that tells the programs of a page apart."""
        return f"{self.page}-{len(self.code)}"

    def needs(self, *packages: str) -> bool:
        """Whether the program imports one of the packages."""
        return re.search(rf"^(?:import|from) (?:{'|'.join(packages)})\b", self.code, re.MULTILINE) is not None


def programs_of(page: Path) -> list[Program]:
    """The programs of a page in Markdown; a block of Python without an output is an error."""
    text = page.read_text()
    found = [Program(page.name, code, output) for code, output in _PROGRAM.findall(text)]
    assert len(found) == text.count("```python\n"), f"{page.name}: a program without its output"
    return found


async def output_of(program: Program, python: str, folder: Path) -> str:
    """Run a program in a process of its own; return its output, with the paths of its tracebacks as it was shown."""
    (folder / "program.py").write_text(program.code)
    _, output = await ended(python, "program.py", cwd=folder)
    return output.replace(f"{folder}/", "")
