"""``umbel demo``: sample upstreams and a gateway in front of them, in one process on loopback.

``--once`` makes it a smoke test of an installation.
"""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..demo.services import SERVICES

if TYPE_CHECKING:
    import httpx

    from ..demo.session import RunningDemo

DEFAULT_PORT = 8000
PAGE = "/dashboard/42"
SEED_MAX = 999_999

_NAMES = ", ".join(SERVICES)
_service = click.Choice(list(SERVICES))


@click.command(short_help="Start sample services and a gateway in front of them.")
@click.option(
    "--slow", multiple=True, type=_service, metavar="NAME", help=f"Delay the responses of a service by 2 s: {_NAMES}."
)
@click.option(
    "--fail", multiple=True, type=_service, metavar="NAME", help=f"Let a service respond with status 500: {_NAMES}."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help=f"The gateway's port, 0 for any free one.  [default: {DEFAULT_PORT}; 0 with --once]",
)
@click.option(
    "--traffic",
    is_flag=True,
    help="Send some 20 requests per second; a few are answered late or in part, fail, or are given up by the client.",
)
@click.option(
    "--seed",
    type=click.IntRange(1, SEED_MAX),
    metavar="N",
    help="The seed of the traffic, which makes it repeatable.  [default: random]",
)
@click.option(
    "--once", is_flag=True, help="Send one request, print the response, and exit: with 0 if its status is 200, else 1."
)
@click.pass_context
def demo(
    ctx: click.Context,
    slow: tuple[str, ...],
    fail: tuple[str, ...],
    port: int | None,
    traffic: bool,
    seed: int | None,
    once: bool,
) -> None:
    """Start four sample services on loopback and a gateway in front of them, with the sample configuration.

    Prints curl commands to try, and runs until Ctrl-C. Log files are written to ./logs.
    """
    from ..core.diagnostics.request_console import requests_on_stderr, stderr_is_terminal
    from ..demo.session import run_demo
    from ..demo.traffic import REQUESTS_PER_S
    from ..logs import crashes_on_stderr
    from .running import run

    if once and traffic:
        raise click.UsageError("--once and --traffic cannot be used together.")
    if seed is not None and not traffic:
        raise click.UsageError("--seed has an effect only with --traffic.")
    if traffic and seed is None:
        seed = random.randint(1, SEED_MAX)
    if port is None:
        port = 0 if once else DEFAULT_PORT
    statuses: list[int] = []

    async def visit(running: RunningDemo) -> None:
        if once:
            statuses.append(await _ask(running))
        else:
            _introduce(running, slow, fail)
            if seed is not None:
                click.echo(f"\nTraffic: {REQUESTS_PER_S:g} requests per second, some of which go wrong (seed {seed}).")

    with crashes_on_stderr(), requests_on_stderr(not once and stderr_is_terminal()):
        start = partial(run_demo, visit, once=once, port=port, slow=slow, fail=fail, traffic_seed=seed)
        run(partial(start, logs=Path.cwd() / "logs"))
    if once:
        ctx.exit(0 if statuses == [200] else 1)
    click.echo("Stopped.")


def _introduce(running: RunningDemo, slow: tuple[str, ...], fail: tuple[str, ...]) -> None:
    page = running.gateway + PAGE
    rows = [("curl -i " + page, "one response made of all calls")]
    rows.append((f"curl -N -H 'Accept: application/x-ndjson' {page}", "each outcome as soon as it is there"))
    if slow or fail:
        rows.append((_demo_command(""), "the demo without slow or failing services"))
    else:
        rows.append((_demo_command("--slow offers"), "a partial response, on time"))
        rows.append((_demo_command("--traffic"), "a stream of requests, some of which go wrong"))
    width = max(len(command) for command, _ in rows)
    click.echo(f"Umbel runs on {running.gateway} (Ctrl-C stops it), in front of these services:\n")
    for name, urls in running.upstreams.items():
        marks = [word for word, names in (("slow", slow), ("failing", fail)) if name in names]
        click.echo(f"  {name:8} {'  '.join(urls)}{'   ' if marks else ''}{', '.join(marks)}")
    click.echo("\nTry:\n")
    for command, meaning in rows:
        click.echo(f"  {command:{width}}   # {meaning}")
    click.echo(f"\nOne line per request goes to {_shown(running.logs)}/access.jsonl.")


def _demo_command(options: str) -> str:
    """Return the command that starts the demo with these options; ``make demo`` if make has started this process."""
    if "MAKELEVEL" in os.environ:
        return f"make demo ARGS='{options}'" if options else "make demo"
    return f"umbel demo {options}".strip()


async def _ask(running: RunningDemo) -> int:
    """Send one request, print the response, and return its status."""
    import httpx

    url = running.gateway + PAGE
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(url)
    click.echo(f"GET {url}\n")
    click.echo(f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip())
    for name, value in response.headers.multi_items():
        click.echo(f"{name}: {value}")
    click.echo(f"\n{_pretty(response)}")
    return response.status_code


def _pretty(response: httpx.Response) -> str:
    import msgspec

    try:
        return msgspec.json.format(response.content, indent=2).decode()
    except msgspec.DecodeError:
        return response.text


def _shown(directory: Path) -> str:
    return str(directory.relative_to(Path.cwd())) if directory.is_relative_to(Path.cwd()) else str(directory)
