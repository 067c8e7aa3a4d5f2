"""docs/tutorial.md: its files are written, its commands run, and each output is the one that is shown."""

from __future__ import annotations

from pathlib import Path

from tests.support.process.processes import PROJECT
from tests.support.process.shown_session import session, shows, steps_of

STEPS = list(steps_of((PROJECT / "docs" / "tutorial.md").read_text()))


async def test_a_reader_who_follows_the_tutorial_gets_each_output_that_it_shows(tmp_path: Path) -> None:
    async with session(tmp_path) as reader:
        for step in STEPS:
            output = await reader.run(step)
            assert not step.shown or shows(step.shown, output), (step.command, output)


def test_the_tutorial_has_five_services_and_shows_most_outputs() -> None:
    commands = [step for step in STEPS if step.command]
    assert len([step for step in STEPS if step.file]) == 4
    assert len([step for step in commands if step.shown]) > len(commands) / 2
