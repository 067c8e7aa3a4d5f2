"""``tools/external.py``: each folder of tests/external has an entry, and a missing program is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import external


def test_each_folder_of_tests_has_an_entry() -> None:
    folders = {path.name for path in external.TESTS.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(external.TOOLS)


def test_the_time_limits_of_all_folders_sum_up_to_at_most_fifty_minutes() -> None:
    assert sum(tool.seconds_max for tool in external.TOOLS.values()) <= 50 * 60


def test_a_program_that_cannot_be_installed_is_reported_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "program", lambda name: None)
    assert external.install("nginx") == "not installed; as root: apt-get install nginx-light"


def test_packages_are_installed_once_and_again_when_their_list_changes_or_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []
    results = iter([True, False, True])
    monkeypatch.setattr(external, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(external, "PROJECT", tmp_path)
    monkeypatch.setattr(external, "ENVIRONMENTS", tmp_path / ".ext")
    monkeypatch.setattr(external, "TOOLS", {"node": external.Tool({}, 1)})
    monkeypatch.setattr(external, "_quietly", lambda command: ran.append(command[1]) or next(results))
    manifest = tmp_path / "tests" / "node" / "package.json"
    manifest.parent.mkdir(parents=True)

    manifest.write_text("one")
    assert [external.install("node"), external.install("node"), ran] == [None, None, ["install"]]
    manifest.write_text("another")
    assert "npm install --prefix" in str(external.install("node"))
    assert external.install("node") is None
    assert ran == ["install"] * 3


def test_a_skipped_or_failed_folder_is_reported_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(external, "install", lambda name: "not installed" if name == "nginx" else None)
    monkeypatch.setattr(
        external, "run", lambda name, options: "FAILED   in 1 s" if name == "curl" else "passed   in 2 s"
    )
    monkeypatch.setattr("sys.argv", ["external"])
    assert external.main() == 1
    last = capsys.readouterr().out.splitlines()[-len(external.TOOLS) :]
    assert "curl          FAILED   in 1 s" in last
    assert "nginx         SKIPPED  not installed" in last
    monkeypatch.setattr("sys.argv", ["external", "nginx", "node"])
    assert external.main() == 0


def test_an_unknown_name_is_refused_with_the_known_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["external", "ngnix"])
    with pytest.raises(SystemExit):
        external.main()
    assert "there are no tests with ngnix; there are: chromium, curl" in capsys.readouterr().err
