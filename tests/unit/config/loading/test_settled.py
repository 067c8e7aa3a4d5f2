"""Files that are written while they are read, and configurations that lost their routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import GOOD, write
from umbel.config.hypercorn_toml.settings import hypercorn_keys
from umbel.config.loading import file_reader
from umbel.config.loading.empty_config import allows_empty, require_routes
from umbel.config.loading.file_reader import PAUSE_S, READS_MAX
from umbel.config.loading.load import load
from umbel.core.errors import ConfigError
from umbel.core.regular_file import open_regular

HALF = len(GOOD) - 20
"""The number of first characters of ``GOOD`` that are no valid TOML."""


class Writer:
    """Simulate another process, which continues to write its file in each pause of the reader."""

    def __init__(self, path: Path, *versions: str) -> None:
        self.pauses: list[float] = []
        self._path = path
        self._versions = [*versions]
        self.step()

    def step(self, seconds: float = 0.0) -> None:
        self.pauses.append(seconds)
        if self._versions:
            self._path.write_text(self._versions.pop(0))


@pytest.mark.parametrize("first", ["", GOOD[:HALF], "[server]\n"], ids=["truncated", "no TOML", "another"])
def test_a_half_written_file_is_read_again(first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path / "umbel.toml", first, GOOD)
    monkeypatch.setattr(file_reader.time, "sleep", writer.step)
    assert len(load(tmp_path / "umbel.toml").routes) == 1
    assert writer.pauses[1:] == [PAUSE_S, PAUSE_S]


def test_a_half_written_included_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 'include = ["a.toml"]\n')
    writer = Writer(tmp_path / "a.toml", GOOD[:HALF], GOOD)
    monkeypatch.setattr(file_reader.time, "sleep", writer.step)
    assert len(load(tmp_path / "umbel.toml").routes) == 1


def test_a_directory_that_is_replaced_during_a_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, other = tmp_path / "current", tmp_path / "other"
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        files = {"a.toml": GOOD.replace('path = "/', f'path = "/{version}/')}
        write(tmp_path / version, f'include = ["a.toml"]\nserver.hosts = ["{version}"]\n', files)
    current.symlink_to("old")
    other.symlink_to("new")
    opened: list[object] = []

    def open_and_switch(path: Path) -> int:
        opened.append(path)
        if len(opened) == 2:  # The main file has the old content.
            other.rename(current)
        return open_regular(path)

    monkeypatch.setattr(file_reader, "open_regular", open_and_switch)
    config = load(current / "umbel.toml")
    assert (config.server.hosts, config.routes[0].path[:5]) == (("new",), "/new/")


def test_a_half_written_hypercorn_toml_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path / "hypercorn.toml", "backlog = ", "backlog = 7\n")
    monkeypatch.setattr(file_reader.time, "sleep", writer.step)
    assert hypercorn_keys(tmp_path / "hypercorn.toml")["backlog"] == 7


def test_a_file_removed_between_two_reads_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "umbel.toml"
    path.write_text(GOOD)
    monkeypatch.setattr(file_reader.time, "sleep", lambda seconds: path.unlink(missing_ok=True))
    with pytest.raises(ConfigError, match="there is no such file"):
        load(path)


def test_a_file_that_keeps_changing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "umbel.toml"
    writer = Writer(path, *(f"{GOOD}{'#' * count}" for count in range(READS_MAX + 10)))
    monkeypatch.setattr(file_reader.time, "sleep", writer.step)
    with pytest.raises(ConfigError, match="keeps changing while it is read"):
        load(path)
    assert len(writer.pauses) == 1 + READS_MAX


def test_a_file_without_recent_changes_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader.time, "sleep", pytest.fail)
    assert len(load(write(tmp_path, GOOD)).routes) == 1


@pytest.mark.parametrize(
    ("now", "before", "refused"),
    [(0, 0, True), (0, 1, True), (1, 1, False), (1, 2, False), (1, 3, True), (49, 100, True), (50, 100, False)],
)
def test_a_loss_of_more_than_half_of_the_routes_is_refused(now: int, before: int, refused: bool) -> None:
    try:
        require_routes("umbel.toml", now, before)
    except ConfigError as error:
        assert refused
        assert str(error).startswith("umbel.toml: routes: ")
        assert "use --allow-empty (or set UMBEL_ALLOW_EMPTY=1)" in str(error)
        assert "\n" not in str(error)
    else:
        assert not refused


def test_an_application_in_python_needs_no_routes_in_its_file() -> None:
    require_routes("umbel.toml", 0, 0, need_some=False)
    with pytest.raises(ConfigError, match="4 of 4 routes are gone"):
        require_routes("umbel.toml", 0, 4, need_some=False)


def test_an_environment_variable_allows_an_empty_configuration() -> None:
    assert [allows_empty({"UMBEL_ALLOW_EMPTY": value}) for value in ("1", "true", "YES", "0", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not allows_empty({})
