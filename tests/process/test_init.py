"""The test that ``umbel init`` writes passes."""

from __future__ import annotations

from pathlib import Path

from tests.support.process.processes import PYTHON, ended
from tests.support.testing.plug_in import PLUG_IN


async def test_the_test_of_the_starter_passes(tmp_path: Path) -> None:
    status, said = await ended(PYTHON, "-m", "umbel", "init", cwd=tmp_path)
    assert status == 0, said
    status, said = await ended(PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUG_IN, cwd=tmp_path)
    assert status == 0, said
    assert "2 passed" in said
