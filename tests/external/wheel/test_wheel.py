"""The wheel: its content, and its installation into an empty environment without extras."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
DATA = {
    "umbel/py.typed", "umbel/demo/umbel.toml", "umbel/demo/starter/Dockerfile", "umbel/demo/starter/dockerignore",
    "umbel/demo/starter/gitignore", "umbel/demo/starter/hypercorn.toml", "umbel/demo/starter/pyproject.toml",
    "umbel/demo/starter/test_dashboard.txt", "umbel/demo/starter/umbel.toml",
}  # fmt: skip
PAGES = ("admin/console", "labs/page")
"""The folders of pages for browsers, all of whose files are data."""


def output(command: Sequence[str | Path], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=170)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the files that git tracks, so that untracked files cannot get into it."""
    source = tmp_path_factory.mktemp("source")
    names = output(["git", "ls-files", "pyproject.toml", "README.md", "LICENSE", "src"], PROJECT).splitlines()
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((PROJECT / name).read_bytes())
    built = tmp_path_factory.mktemp("wheel")
    output([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, source], built)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with only the wheel and its dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    output(
        [environment / "bin/python", "-m", "pip", "install", "-q", "-c", PROJECT / "constraints.txt", wheel],
        environment,
    )
    return environment / "bin"


def test_the_wheel_has_each_module_and_data_file_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = PROJECT / "src"
    modules = {str(path.relative_to(source)) for path in (source / "umbel").rglob("*.py")}
    found = [path for folder in PAGES for path in (source / "umbel" / folder).rglob("*.*")]
    pages = {str(path.relative_to(source)) for path in found}
    assert names == modules | DATA | pages


def test_the_demo_runs_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    assert "umbel-completed: true" in output([installed / "umbel", "demo", "--once"], tmp_path).lower()


def test_the_configuration_of_umbel_init_is_valid_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    output([installed / "umbel", "init"], tmp_path)
    assert "umbel.toml: ok" in output([installed / "umbel", "check"], tmp_path)


def test_the_test_of_umbel_init_passes_with_the_extra_for_tests(wheel: Path, installed: Path, tmp_path: Path) -> None:
    output([installed / "umbel", "init"], tmp_path)
    extra = ["-m", "pip", "install", "-q", "-c", PROJECT / "constraints.txt", f"umbel[testing] @ file://{wheel}"]
    output([installed / "python", *extra], tmp_path)
    assert "2 passed" in output([installed / "python", "-m", "pytest", "-q", "-W", "error"], tmp_path)


@pytest.mark.parametrize("part", ["umbel", "umbel.upstream", "umbel.server", "umbel.logs", "umbel.asgi"])
def test_each_part_imports_without_extras(installed: Path, tmp_path: Path, part: str) -> None:
    output([installed / "umbel", "init"], tmp_path)
    assert output([installed / "python", "-W", "error", "-c", f"import {part}"], tmp_path) == ""
