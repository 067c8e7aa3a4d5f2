"""``umbel explain METHOD PATH``: which route answers, what it calls when, and each limit in force.

Reads the configuration and compiles its plans as the gateway does; sends nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from .options import config_option


@click.command(short_help="Explain which route answers a request, and how.")
@click.argument("method")
@click.argument("path")
@config_option
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--mermaid", "form", flag_value="mermaid", help="Print a Mermaid flowchart.")
@click.pass_context
def explain(ctx: click.Context, method: str, path: str, file: str, form: str | None) -> None:
    """Explain which route answers METHOD PATH, such as GET /dashboard/42: its calls as a tree, and their limits.

    Exit status 0 if a route answers, 1 if none does, 78 if the configuration cannot be used.
    """
    from ..composition.plan import compile_route
    from ..config.load import load_with_secrets
    from ..gateway.checks import CHECKS
    from .drawing import mermaid, tree
    from .explanation import explain_plan
    from .matching import NoMatch, find

    loaded = load_with_secrets(file, checks=CHECKS)
    plans = [compile_route(loaded.config, index) for index in range(len(loaded.config.routes))]
    found = find(plans, method.upper(), path)
    if isinstance(found, NoMatch):
        if form == "json":
            click.echo(json.dumps({"route": None, **found._asdict()}, ensure_ascii=False))
        else:
            near = f"; near it: {', '.join(found.near)}" if found.near else ""
            click.echo(f"{method.upper()} {path}: {found.status}, {found.reason}{near}", err=found.status >= 300)
        ctx.exit(0 if found.status < 300 else 1)
    route = explain_plan(loaded, found.route, plans[found.route])
    if form == "json":
        values = {name: str(value) for name, value in found.values.items()}
        click.echo(json.dumps({"route": asdict(route), "path": values}, indent=2, ensure_ascii=False))
    elif form == "mermaid":
        click.echo(mermaid(route))
    else:
        bound = ", ".join(
            f"{name} = {json.dumps(str(value), ensure_ascii=False)}" for name, value in found.values.items()
        )
        click.echo(f"{method.upper()} {path}{f': {bound}' if bound else ''}\n\n{tree(route)}")
