"""``umbel serve``: the configured routes in one process, until a signal.

What is served stands in umbel.toml, how it is served in hypercorn.toml; options win over both.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from .options import config_option


@click.command(short_help="Serve the configured routes, in one process.")
@config_option
@click.option("--bind", "-b", multiple=True, metavar="ADDRESS", help="HOST:PORT or unix:PATH; may stand several times.")
@click.option(
    "--hypercorn",
    "hypercorn_file",
    metavar="FILE",
    help="The server's settings.  [default: hypercorn.toml beside the configuration, if it is there]",
)
def serve(file: str, bind: tuple[str, ...], hypercorn_file: str | None) -> None:
    """Serve the configured routes until SIGINT or SIGTERM.

    Stopping is graceful: requests in flight get the graceful_timeout of the server's settings; a second signal cuts
    them. Exit status 78 if the configuration cannot be used or an address cannot be listened on.
    """
    import trio

    from ..gateway.app import Umbel
    from ..logs import ensure_writable
    from ..server import hypercorn_config
    from ..server import serve as serve_app
    from .running import both, run

    app, settings = both(
        partial(Umbel.from_file, file),
        partial(hypercorn_config, hypercorn_file or _beside(file), bind=bind, warn=_warn),
    )

    async def main() -> None:
        await ensure_writable(app.gateway_config.logs)
        async with trio.open_nursery() as nursery:
            for address in await nursery.start(serve_app, app, settings):
                click.echo(f"Umbel runs on {address} (Ctrl-C stops it)")

    run(main, app)


def _beside(file: str) -> str | None:
    settings = Path(file).with_name("hypercorn.toml")
    return str(settings) if settings.is_file() else None


def _warn(problem: object) -> None:
    click.echo(f"warning: {problem}", err=True)
