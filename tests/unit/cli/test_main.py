"""The command line as a whole: help, exit statuses, and the lazy import of commands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import GOOD, write
from umbel.cli import COMMANDS, EXIT_CONFIG, EXIT_INTERRUPTED, Commands, main
from umbel.core.errors import ConfigError, ConfigProblem


def test_help_lists_each_command_with_its_own_short_help() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    group = click.Context(main)
    for name, words in COMMANDS.items():
        command = main.get_command(group, name) if isinstance(main, Commands) else None
        assert command is not None
        assert command.short_help == words
        assert f"  {name} " in result.stdout
        assert words in result.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["chekc"])
    assert result.exit_code == 2
    assert "No such command 'chekc'" in result.stderr


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("umbel ")


PROBLEMS = [ConfigProblem("a.toml", 1, "b", "is no c"), ConfigProblem("d.toml", None, "", "is no e")]


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ConfigError(PROBLEMS), EXIT_CONFIG, "a.toml:1: b: is no c\nd.toml: is no e\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, ""),
    ],
)
def test_an_error_of_a_command_is_printed_without_a_traceback(error: BaseException, code: int, printed: str) -> None:
    @click.group(cls=Commands)
    def group() -> None:
        raise error

    result = CliRunner().invoke(group, ["check"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, printed, "")


def test_the_configuration_is_named_by_option_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD, {"other.toml": GOOD, "third.toml": GOOD})
    runner = CliRunner()
    assert runner.invoke(main, ["check"]).stdout.startswith("umbel.toml: ok")
    assert runner.invoke(main, ["check"], env={"UMBEL_CONFIG": "other.toml"}).stdout.startswith("other.toml: ok")
    named = runner.invoke(main, ["check", "-c", "third.toml"], env={"UMBEL_CONFIG": "other.toml"})
    assert named.stdout.startswith("third.toml: ok")


@pytest.mark.parametrize("command", ["serve", "serve -w 1", "check", "explain GET /", "logs tail"])
def test_a_missing_configuration_is_reported_with_how_to_begin(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command.split())
    assert (result.exit_code, result.stdout) == (EXIT_CONFIG, "")
    [line] = result.stderr.splitlines()
    assert line == (
        'umbel.toml: cannot be read: there is no such file; "umbel init" writes a first one, and "umbel demo"'
        " runs an example"
    )
    assert CliRunner().invoke(main, ["init"]).exit_code == 0
    assert CliRunner().invoke(main, ["check"]).exit_code == 0
