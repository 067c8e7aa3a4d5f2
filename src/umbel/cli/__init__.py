"""The command line: the group of all commands, their exit statuses, and the output of a configuration's mistakes.

Each command is a module of its own, imported only when the command is called. This module imports click and nothing
heavy, so that ``umbel --help`` is quick.
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
"""The exit status after Ctrl-C, as shells count it: 128 plus the signal's number."""

COMMANDS = {
    "init": "Write the files of a new project.",
    "serve": "Serve the configured routes or an ASGI application.",
    "ctl": "Show the state of a running instance, and control it.",
    "top": "Show a running instance live in the terminal.",
    "slow": "Show slow and failed requests of a running instance.",
    "check": "Check the configuration and report every mistake in it.",
    "explain": "Show which route answers a request, and its calls.",
    "schema": "Print the JSON Schema of the configuration.",
    "metrics": "List the metrics with type, labels and meaning.",
    "auth": "Make an API key, or the digest of one.",
    "logs": "Show log records, or statistics about them.",
    "record": "Serve, and record what the upstreams answer.",
    "replay": "Serve with upstreams that answer from a cassette.",
    "lab": "Show how asyncio and trio differ, in short experiments.",
    "demo": "Start sample services and a gateway in front of them.",
}
"""The commands, each with its line of ``umbel --help``, which imports none of them."""
_FOLDERS = {
    "ctl": "instance",
    "top": "instance",
    "slow": "instance",
    "record": "cassettes",
    "replay": "cassettes",
}
"""The packages of the commands whose module is in one."""


class Commands(click.Group):
    """A group that imports a command, the function ``name`` of the module ``name``, when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of ``--help``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of this name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        package = f"{__name__}.{_FOLDERS[cmd_name]}" if cmd_name in _FOLDERS else __name__
        command = getattr(importlib.import_module(f"{package}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands of ``--help`` without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A ``ConfigError`` exits with 78 and a line for each mistake, Ctrl-C with 130."""
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
    # A configuration may hold any character; a terminal that cannot show one gets its code.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
