"""``umbel explain METHOD PATH``: print the route that answers a request, its calls and their order, and all limits.

It loads the configuration and compiles the plans as the gateway does; it makes no call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote_plus

import click

from .options import config_option

if TYPE_CHECKING:
    from ..config.schema.sections import Config
    from .routes.browsers import BrowserAnswer
    from .routes.explanation import RouteExplained
    from .routes.matching import NoMatch, Query


@click.command(short_help="Show which route answers a request, and its calls.")
@click.argument("method")
@click.argument("path")
@config_option
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header field; may be repeated.")
@click.option("--client", default="", metavar="ADDRESS", help="The client's address, which expressions may read.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@click.pass_context
def explain(
    ctx: click.Context,
    method: str,
    path: str,
    file: str,
    headers: tuple[str, ...],
    client: str,
    as_json: bool,
    as_mermaid: bool,
) -> None:
    """Show which route answers METHOD PATH, such as GET /dashboard/42, and its calls as a tree with their limits; for a
    proxy route the request to the upstream, and which header fields are passed on.

    A query string in PATH is checked as the route checks it. Header fields decide where routes have a host or a match:
    -H "Host: shop.example". With -H "Origin: https://app.example" the output says what a page of this origin gets;
    with OPTIONS and Access-Control-Request-Method too, what the answer to the preflight is. With -H "Accept-Encoding:
    gzip" it says in which coding the answer is sent. A call with a split is shown with the upstream that it chooses
    for this request; with --client also if it chooses by client.ip. Refusals for Host, Content-Type, Content-Encoding,
    Content-Length, If-Match, names with _ and Origin of a WebSocket are foreseen; networks and a body are not.

    Exit status: 0 if a route or the gateway itself answers, 1 if the request is redirected or refused, 78 if the
    configuration cannot be used.
    """
    if as_json and as_mermaid:
        raise click.UsageError("--json and --mermaid cannot be used together.")
    from ..composition.plan.compiler import compile_routes
    from ..config.loading.empty_config import require_file
    from ..config.loading.load import load_for_display
    from ..gateway.checks import CHECKS
    from .routes.browsers import browser_answer
    from .routes.explanation import explain_plan
    from .routes.matching import NoMatch, find, is_not_modified
    from .routes.proxied import explain_proxy
    from .routes.refusals import read_inputs, refused_head

    method = method.upper()
    fields = [(name.strip(), value.strip()) for name, _, value in (header.partition(":") for header in headers)]
    require_file(file)
    loaded = load_for_display(file, checks=CHECKS)
    request = f"{method} {_without_values(path, hidden := _hidden_parameters(loaded.config))}"
    plans = compile_routes(loaded.config)
    found = find(plans, method, path, fields)
    browsers = browser_answer(loaded, plans, method, path, fields, getattr(found, "route", None))
    if (refused := refused_head(loaded.config, method, path, fields)) is not None:
        found, browsers = refused, browsers._replace(preflight=False, refused=())
    if browsers.preflight:
        found = NoMatch(204, "a preflight, answered before any login, limit, hook and call")
    if isinstance(found, NoMatch):
        _exit_without_route(ctx, request, _without_tokens(found, path, hidden), browsers, as_json=as_json)
    inputs = read_inputs(loaded.config, plan := plans[found.route], found, method, path, fields, client)
    if isinstance(inputs, NoMatch):
        _exit_without_route(ctx, request, _without_tokens(inputs, path, hidden), browsers, as_json=as_json)
    passed = explain_proxy(plan, method, path, found.values, inputs.context, fields, loaded.config.auth, loaded.hide)
    if isinstance(passed, NoMatch):
        _exit_without_route(ctx, request, _without_tokens(passed, path, hidden), browsers, as_json=as_json)
    route = explain_plan(loaded, found.route, plan, fields, inputs.context)
    route = replace(route, location=inputs.location, chosen_because=tuple(map(loaded.hide, found.why)), proxy=passed)
    if is_not_modified(plan, method, fields):
        route = replace(route, static=f"status 304, since If-None-Match names the ETag; otherwise {route.static}")
    _show_route(request, route, found.values, _query(inputs.query, hidden), browsers, as_json, as_mermaid)


def _hidden_parameters(config: Config) -> dict[str, str]:
    """The query parameters in which any section of ``[auth]`` looks for tokens, with what is shown for their values."""
    from ..config.schema.access.credential_names import credential_names
    from ..core.diagnostics.redact import REDACTED

    return {name: REDACTED for each in config.auth.values() for name in credential_names(each, "query")}


def _without_tokens(answer: NoMatch, target: str, hidden: Mapping[str, str]) -> NoMatch:
    """An answer whose reason, which may quote the target, has none of the values that are hidden."""
    reason = answer.reason
    for pair in target.partition("?")[2].split("&"):
        name, _, value = pair.partition("=")
        if value and (key := unquote_plus(name)) in hidden:
            reason = reason.replace(value, hidden[key])
    return answer._replace(reason=reason)


def _query(query: Query, hidden: Mapping[str, str]) -> Query:
    """The parameters as they are shown."""
    return query._replace(
        values={name: hidden.get(name, value) for name, value in query.values.items()},
        # A token is read by ``auth``, before the route reads the rest of the query.
        ignored=tuple(name for name in query.ignored if name not in hidden),
    )


def _without_values(target: str, hidden: Mapping[str, str]) -> str:
    """A target with the texts of ``hidden`` in place of the values of the query parameters that it names."""
    path, mark, query = target.partition("?")
    if not hidden or not mark:
        return target
    pairs = [(pair, pair.partition("=")[0]) for pair in query.split("&")]
    shown = [f"{name}={hidden[key]}" if (key := unquote_plus(name)) in hidden else pair for pair, name in pairs]
    return f"{path}?{'&'.join(shown)}"


def _show_route(
    request: str,
    route: RouteExplained,
    path: Mapping[str, Any],
    query: Query,
    browsers: BrowserAnswer,
    as_json: bool,
    as_mermaid: bool,
) -> None:
    """Print the route that answers ``request``, as JSON, as a flowchart or as a tree."""
    from .routes.rendering import mermaid, tree

    values = {name: str(value) for name, value in path.items()}
    if as_json:
        document = {"route": asdict(route), "path": values, "query": query.values, "ignored": query.ignored}
        document["browsers"] = browsers._asdict()
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    ignored = "".join(
        f'The query parameter "{name}" is ignored: the route does not know it.\n' for name in query.ignored
    )
    if as_mermaid:
        click.echo(ignored, err=True, nl=False)
        click.echo(mermaid(route))
        return
    text = tree(route, request.partition(" ")[0])
    _show_tree(request, {**values, **query.values}, f"{ignored}\n{text}", browsers)


def _show_tree(request: str, bound: Mapping[str, Any], text: str, browsers: BrowserAnswer) -> None:
    """Print the request with the values of its parameters, the text of its route, and what browsers get."""
    shown = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in bound.items())
    click.echo(f"{request}{f': {shown}' if shown else ''}\n{text}")
    _show_browsers(browsers)


def _show_browsers(answer: BrowserAnswer) -> None:
    if answer.rules is not None or answer.origin is not None:
        click.echo("\n" + "\n".join(answer.lines()))


def _exit_without_route(
    ctx: click.Context, request: str, answer: NoMatch, browsers: BrowserAnswer, *, as_json: bool
) -> NoReturn:
    """Print the response to a request that causes no call, and exit: with 0 if its status is a success, else 1."""
    if as_json:
        click.echo(json.dumps({"route": None, **answer._asdict(), "browsers": browsers._asdict()}, ensure_ascii=False))
    else:
        near = f"; near it: {', '.join(answer.near)}" if answer.near else ""
        click.echo(f"{request}: {answer.status}, {answer.reason}{near}", err=answer.status >= 300)
        _show_browsers(browsers)
    ctx.exit(0 if answer.status < 300 else 1)
