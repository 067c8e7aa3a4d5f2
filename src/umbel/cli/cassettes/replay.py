"""``umbel replay``: serve with upstreams that answer from a cassette."""

from __future__ import annotations

import click

from ..options import config_option, hypercorn_beside, load_config


@click.command(short_help="Serve with upstreams that answer from a cassette.")
@click.argument("cassette", type=click.Path(dir_okay=False))
@config_option
@click.option("--bind", "-b", multiple=True, metavar="ADDRESS", help="Listen on HOST:PORT or unix:PATH.")
def replay(cassette: str, file: str, bind: tuple[str, ...]) -> None:
    """Serve the configured routes until SIGINT or SIGTERM. The upstreams answer from CASSETTE; none is contacted.

    Each answer takes as long as when umbel record wrote it. A request that was not recorded gets 404 from its upstream.
    A cassette without bodies gives bodies of the same sizes.
    """
    from functools import partial

    from ...gateway.app import Umbel
    from ...server import hypercorn_config
    from ...testing.cassettes.exchange import CassetteError
    from ...testing.cassettes.replay import read
    from ...testing.cassettes.session import serve_replayed
    from ..running import run

    config = load_config(file)
    settings = hypercorn_config(hypercorn_beside(file), bind=bind)
    app = Umbel("umbel", config, static_folder=None)
    try:
        run(partial(serve_replayed, app, settings, *read(cassette)), app)
    except CassetteError as error:
        raise click.ClickException(str(error)) from error
