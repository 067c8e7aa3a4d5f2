"""``umbel init``: the files that it writes, and files that it leaves unchanged."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from umbel.cli import main
from umbel.config.schema.reference.jsonschema import json_schema

FILES = {
    ".dockerignore", ".gitignore", "Dockerfile", "hypercorn.toml", "pyproject.toml", "test_dashboard.py", "umbel.toml",
    "umbel.schema.json",
}  # fmt: skip


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def test_the_files_are_written_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "gateway"
    result = init(str(folder))
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == FILES
    assert all(name in result.stdout for name in FILES)
    assert f'"cd {folder}; umbel serve"' in result.stdout


def test_without_a_folder_the_current_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = init()
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert 'next: "umbel serve", with "umbel demo --port 8001"' in result.stdout


def test_the_written_configuration_is_valid_and_names_the_written_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    init()
    assert (tmp_path / "umbel.toml").read_text().startswith("#:schema ./umbel.schema.json\n")
    assert json.loads((tmp_path / "umbel.schema.json").read_bytes()) == json_schema()
    checked = CliRunner().invoke(main, ["check"])
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "warning" not in checked.output


def test_an_existing_file_is_not_changed_and_no_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("mine")
    result = init(str(tmp_path))
    assert result.exit_code == 1
    assert "has umbel.toml already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["umbel.toml"]
    assert (tmp_path / "umbel.toml").read_text() == "mine"


def test_a_dangling_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "umbel.toml").symlink_to(elsewhere)
    assert init(str(folder)).exit_code == 1
    assert not elsewhere.exists()


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = init(str(tmp_path / "file" / "below"))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"Error: cannot write into {tmp_path}/file/below: Not a directory"]


def test_the_package_has_the_files(tmp_path: Path) -> None:
    """Package data names each file of the starter; hidden files have names without the dot."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "demo/starter/*" in project["tool"]["setuptools"]["package-data"]["umbel"]
