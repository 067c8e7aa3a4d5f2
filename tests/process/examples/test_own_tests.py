"""The tests that stand in an example pass where somebody has copied the example to, and its configuration is sound."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.process.examples import EXAMPLES
from tests.support.process.processes import PYTHON, ended
from umbel.cli.options import load_with_warnings

WITH_TESTS = sorted(path.parent.name for path in EXAMPLES.glob("*/test_*.py"))
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "umbel.testing.pytest_plugin")


@pytest.mark.parametrize("name", WITH_TESTS)
async def test_the_tests_of_an_example_pass_in_a_copy_of_its_folder(name: str, tmp_path: Path) -> None:
    copied = shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("logs", "__pycache__"))

    status, said = await ended(PYTHON, "-m", "pytest", *OPTIONS, cwd=copied)

    assert status == 0, said
    assert "passed" in said


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("umbel.toml")), ids=lambda file: file.parent.name)
def test_no_configuration_of_an_example_has_mistakes_or_warnings(file: Path) -> None:
    assert [*load_with_warnings(str(file)).warnings] == []


def test_the_folders_with_a_configuration_of_their_own_have_tests() -> None:
    assert sorted(path.parent.name for path in EXAMPLES.glob("*/umbel.toml")) == WITH_TESTS
