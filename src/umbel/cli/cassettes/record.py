"""``umbel record``: serve, and write what the upstreams answer to a cassette."""

from __future__ import annotations

import click

from ..options import config_option, hypercorn_beside, load_config


@click.command(short_help="Serve, and record what the upstreams answer.")
@click.argument("cassette", type=click.Path(dir_okay=False))
@config_option
@click.option("--bind", "-b", multiple=True, metavar="ADDRESS", help="Listen on HOST:PORT or unix:PATH.")
@click.option("--bodies", is_flag=True, help="Record the bodies of responses too, as they are.")
def record(cassette: str, file: str, bind: tuple[str, ...], bodies: bool) -> None:
    """Serve the configured routes until SIGINT or SIGTERM, and write what the upstreams answer to the file CASSETTE.

    Tests and umbel replay answer from it, with the same timing (docs/testing.md). The file must not exist; only its
    owner can read it. It has methods, targets, statuses, header fields and times, with secrets hidden as in the logs,
    and never Authorization, Set-Cookie or anything else of a request. Without --bodies it has only the sizes of bodies.
    """
    from functools import partial

    from ...gateway.app import Umbel
    from ...server import hypercorn_config
    from ...testing.cassettes.record import Tape, header_of
    from ...testing.cassettes.session import serve_recorded
    from ..running import run

    config = load_config(file)
    settings = hypercorn_config(hypercorn_beside(file), bind=bind)
    try:
        tape = Tape(cassette, header_of(config, bodies=bodies))
    except FileExistsError:
        raise click.ClickException(f"{cassette} exists already; name a new file") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {cassette}: {error.strerror}") from error
    app = Umbel("umbel", config, static_folder=None)
    if bodies:
        click.echo("bodies are recorded as they are; do not share the cassette if they hold secrets", err=True)
    run(partial(serve_recorded, app, settings, tape), app)
    lost = f"; {tape.lost} were too many or too large and are not in it" if tape.lost else ""
    exchanges = "1 exchange" if tape.written == 1 else f"{tape.written} exchanges"
    click.echo(f"wrote {exchanges} to {cassette}{lost}", err=True)
