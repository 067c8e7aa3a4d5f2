"""``umbel check``: is this configuration good? Exit status 0 or 78, for people, CI and deployment scripts.

Reads files and nothing else: no upstream is asked, no port opened, no log written.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from ..errors import ConfigError
from . import EXIT_CONFIG
from .options import config_option, load_config


@click.command(short_help="Check the configuration and tell every mistake in it.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
@click.pass_context
def check(ctx: click.Context, file: str, as_json: bool) -> None:
    """Check the configuration and tell every mistake in it, one per line: FILE:LINE: KEY: REASON.

    Exit status 0 if it can be used, 78 if not.
    """
    try:
        config = load_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        _print({"ok": False, "file": file, "problems": [asdict(problem) for problem in error.problems]})
        ctx.exit(EXIT_CONFIG)
    counts = {
        "upstream": len(config.upstreams),
        "route": len(config.routes),
        "call": sum(len(route.calls) for route in config.routes),
    }
    if as_json:
        _print({"ok": True, "file": file, **{f"{word}s": count for word, count in counts.items()}})
    else:
        click.echo(f"{file}: ok, {', '.join(_counted(count, word) for word, count in counts.items())}")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _print(result: dict[str, Any]) -> None:
    click.echo(json.dumps(result, ensure_ascii=False))
