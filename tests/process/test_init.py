"""The test that ``umbel init`` writes passes."""

from __future__ import annotations

from pathlib import Path

from tests.support.process.processes import PYTHON, ended

PLUGIN = ("-p", "umbel.testing.pytest_plugin")
"""An environment whose Umbel was installed before it had the plug-in does not know its entry point."""


async def test_the_test_of_the_starter_passes(tmp_path: Path) -> None:
    status, said = await ended(PYTHON, "-m", "umbel", "init", cwd=tmp_path)
    assert status == 0, said
    status, said = await ended(PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN, cwd=tmp_path)
    assert status == 0, said
    assert "2 passed" in said
