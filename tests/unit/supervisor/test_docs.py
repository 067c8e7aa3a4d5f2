"""Commands, options and configurations in the pages for operators are valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from umbel.cli import main
from umbel.cli.instance.ctl import ctl
from umbel.cli.serve import serve
from umbel.config.schema.sections import Config

DOCS = Path(__file__).parents[3] / "docs"
TEXTS = {name: (DOCS / name).read_text() for name in ("supervisor.md", "deploy.md", "admin.md")}


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


def subcommands() -> set[str]:
    return set(ctl.commands) if isinstance(ctl, click.Group) else set()


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_option_shown_exists(name: str) -> None:
    known = {f"ctl {command}" for command in subcommands()} | set(main.list_commands(click.Context(main)))
    for words in re.findall(r"umbel ((?:ctl )?[a-z]+)\b", TEXTS[name].replace("`umbel ctl`", "")):
        if words.split()[0] in ("serve", "ctl", "check") and words != "ctl":
            assert words in known
    for line in TEXTS[name].splitlines():
        if "umbel serve" in line and not line.startswith("|"):
            assert set(re.findall(r" (--[a-z-]+)", line.split("gunicorn")[0])) <= options_of(serve) | {"--workers"}


def test_every_command_of_ctl_is_documented() -> None:
    for command in subcommands():
        assert re.search(rf"^\| `{command}\b", TEXTS["supervisor.md"], re.MULTILINE)


def test_the_configuration_shown_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", "".join(TEXTS.values()), re.DOTALL)
    assert blocks
    for block in blocks:
        Config.model_validate(tomllib.loads(re.sub(r"\$\{\w+\}", "x" * 16, block)))


def test_links_have_targets() -> None:
    for text in TEXTS.values():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (DOCS / link).exists() or link == "../benchmarks/supervisor.md"


def test_the_stop_timeouts_of_the_examples_exceed_the_drain() -> None:
    stop = int(re.findall(r"TimeoutStopSec=(\d+)", TEXTS["deploy.md"])[0])
    grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", TEXTS["deploy.md"])[0])
    server = Config().server
    assert stop >= server.drain_delay + 20 + server.cancel_timeout + 2
    assert grace >= 5 + 20 + server.cancel_timeout  # With the drain_delay that the page recommends.
