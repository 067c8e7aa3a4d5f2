"""The command line: a module per command, imported only when that command is called.

Entry point of the console script and of ``python -m umbel``. Defines what all commands share: the group, the exit codes
and the output of a configuration's mistakes. Imports click and nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from ..core.console import fill_standard_descriptors
from ..core.errors import ConfigError

EXIT_CONFIG = 78
"""The configuration cannot be used (EX_CONFIG of sysexits.h)."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""

COMMANDS = {
    "init": "Write the files to begin with.",
    "serve": "Serve the configured routes or an ASGI application.",
    "ctl": "Show the state of a running master, and control it.",
    "check": "Check the configuration and report every mistake in it.",
    "explain": "Show which route answers a request, and its calls.",
    "schema": "Print the JSON Schema of the configuration.",
    "logs": "Show log records, or statistics about them.",
    "demo": "Start sample services and a gateway in front of them.",
}
"""The commands with one line each, so that ``umbel --help`` imports none of them."""


class Commands(click.Group):
    """A group whose commands are imported when they are called: ``umbel.cli.<name>:<name>``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of ``--help``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands of ``--help`` without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Exit with 78 and a line per problem on ``ConfigError``, with 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            ctx.exit(EXIT_CONFIG)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="umbel", message="umbel %(version)s")
def main() -> None:
    """Umbel, a composition gateway for HTTP: one request in, many upstream calls out, one answer back on time."""
    fill_standard_descriptors()
    # A configuration may name anything; a terminal that cannot show a character shows its code instead.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
