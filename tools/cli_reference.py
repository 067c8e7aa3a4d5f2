"""The reference of the command line in Markdown: ``python -m tools.cli_reference`` prints it for the site.

Each command has a section with its help text and a table of its options, taken from the commands themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from umbel.cli import main

_HEAD = """\
# Command line: every command and option

Each command is part of `umbel`, which `pip install umbel` puts beside Python. `python -m umbel` is the same program.
"""


def commands(context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield the commands below a group, each with its context, and before the commands below itself."""
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        yield below, command
        if isinstance(command, click.Group):
            yield from commands(below)


def section(context: click.Context, command: click.Command) -> str:
    """The section of a command: usage, help text, options."""
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## `{context.command_path}`", f"```text\n{' '.join(usage.split())}\n```", _text(command.help or "")]
    rows = [
        f"| `{_cell(names)}` | {_escaped(_cell(meaning))} |"
        for names, meaning in _options(context)
        if "--help" not in names
    ]
    if rows:
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the options of a command: its names, and its meaning with environment variable and default."""
    for option in context.command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            yield record


def _text(text: str) -> str:
    """The help text of a command in Markdown. ``\\b`` begins a paragraph whose lines click leaves as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"```sh\n{part[2:]}\n```" if part.startswith("\b\n") else _escaped(part) for part in paragraphs)


def _escaped(text: str) -> str:
    """Text in which no character has a meaning in Markdown."""
    return re.sub(r"([<*_\[])", r"\\\1", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page() -> str:
    """The whole page."""
    top = click.Context(main, info_name="umbel", terminal_width=120)
    return "\n\n".join([_HEAD.rstrip(), *(section(context, command) for context, command in commands(top))]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
