"""``tools/cli_reference.py``: the page has each command of ``umbel`` with its options."""

from __future__ import annotations

import re

from tools.cli_reference import page

from umbel.cli import COMMANDS

PAGE = page()


def test_each_command_and_subcommand_has_a_section() -> None:
    sections = re.findall(r"^## `umbel ([\w -]+)`$", PAGE, re.MULTILINE)
    assert {name.split()[0] for name in sections} == set(COMMANDS)
    assert {"ctl drain", "logs tail", "auth new-key"} <= set(sections)


def test_an_option_has_its_names_its_default_and_its_environment_variable() -> None:
    row = "| `-c, --config FILE` | The configuration file. \\[env var: UMBEL\\_CONFIG; default: umbel.toml] |"
    assert row in PAGE.partition("## `umbel serve`")[2].partition("\n## ")[0].splitlines()


def test_a_hidden_command_and_the_help_option_are_left_out() -> None:
    assert "umbel logs grep" not in PAGE
    assert "| `-h, --help`" not in PAGE


def test_an_example_of_a_help_text_keeps_its_lines() -> None:
    assert "```sh\numbel logs tail -n all --json access |\n  jq -c" in PAGE


def test_no_row_of_a_table_is_broken_by_a_bar_in_its_text() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
