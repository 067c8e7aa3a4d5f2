"""``umbel top``: workers, lints, routes, upstreams, requests and tasks of a running instance, live in a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from typing import Any

import click

from ..admin_client import AdminClient, with_admin

TOPICS = ("workers", "lints", "routes", "upstreams", "tree")


@click.command(short_help="Show a running instance live in the terminal.")
@click.option("--once", is_flag=True, help="Print one look and exit, as if the output is not a terminal.")
@with_admin
def top(admin: AdminClient, once: bool) -> None:
    """Show a running instance live in the terminal: what the console shows in a browser.

    Shows the workers, the lints of their event loops, the routes and upstreams with rates and latencies of the last
    seconds, the longest requests in flight, and of which tasks there are most. Refreshes once a second; q or Ctrl-C
    ends it. --json prints one look as one JSON object.

    Exit status: 0; 1 if no instance answers, with the reason.
    """
    import trio

    from .screen import lines_of, whole_screen
    from .stream import StreamEndedError, first_samples, follow

    path = admin.socket_path()
    try:
        if once or admin.as_json or not sys.stdout.isatty():
            samples = trio.run(first_samples, path, TOPICS)
            if admin.as_json:
                click.echo(json.dumps(samples))
            else:
                click.echo("\n".join(lines_of(samples)))
            return
        with whole_screen() as draw:
            trio.run(follow, path, TOPICS, partial(_draw, draw))
    except (OSError, StreamEndedError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise click.ClickException(f"no data from {path}: {reason}; check that the instance runs") from error


def _draw(draw: Any, samples: dict[str, Any]) -> None:
    from .screen import fitted, lines_of

    size = shutil.get_terminal_size()
    draw(fitted(lines_of(samples, keys=True), size.columns, size.lines))
