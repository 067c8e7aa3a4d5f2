"""Warnings about credentials of clients that the configuration sends on to upstreams.

A credential of ``[auth]`` is for the gateway. An upstream that gets it could use it, and so could whoever reads the
upstream's logs. ``"*"`` leaves API keys and cookies with tokens out; here are the keys that name them. The field
Authorization is not among them: whoever names it means it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..composition.text.expression import compile_expression
from ..composition.text.template import parse_template
from ..config.schema.access.credential_names import CredentialNames, credentials_of
from ..config.schema.proxy import Proxy
from ..config.schema.sections import Call, Config, Constant, KeyPath, Upstream

Sent = Iterator[tuple[KeyPath, str]]
"""Key paths, each with a name that the key sends on as it is in templates: ``headers.x_api_key``, ``cookies.token``."""


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each key by which an upstream gets an API key or a cookie with a token.

    Args:
        config: a configuration without mistakes.
    """
    credentials = credentials_of(config.auth.values())
    found: dict[tuple[KeyPath, str], None] = {}
    for index, route in enumerate(config.routes):
        sent = [
            (("routes", index, "calls", name, *at), read)
            for name, call in route.calls.items()
            for at, read in _sent_by_call(call)
        ]
        upstreams = {name for call in route.calls.values() for name in (*call.upstreams, *_mirrors(call))}
        if route.proxy is not None:
            rules = route.proxy.request_headers
            for key, table in (("set", rules.set_), ("add", rules.add)):
                sent += _templates(("routes", index, "proxy", "request_headers", key), table)
            upstreams.update(route.proxy.destinations, _mirrors(route.proxy))
        for name in sorted(upstreams):
            sent += ((("upstreams", name, *at), read) for at, read in _sent_by_upstream(config.upstreams[name]))
        for at, read in sent:
            found.update(dict.fromkeys((at, reason) for reason in _reasons(read, credentials)))
    yield from found


def _mirrors(sender: Call | Proxy) -> tuple[str, ...]:
    """The upstream that gets copies. A copy has what the request has, and the fields of that upstream."""
    return () if sender.mirror is None else (sender.mirror.upstream,)


def _sent_by_call(call: Call) -> Sent:
    if call.respond is not None:
        return
    for place, field in enumerate(call.forward_headers):
        if field != "cookie" or not call.forward_cookies:  # forward_cookies chooses the cookies then.
            yield ("forward_headers", place), f"headers.{field}"
    for place, cookie in enumerate(call.forward_cookies):
        yield ("forward_cookies", place), f"cookies.{cookie}"
    yield from _templates(("headers",), call.headers)
    yield from _template(("path",), call.path or "")
    if call.each is not None:
        yield from _expression(("each",), call.each)
    for key, sources in (("with", call.with_), ("params", call.params), ("json", call.json_), ("form", call.form)):
        if isinstance(sources, str):
            yield from _expression((key,), sources)
        else:
            yield from _expressions((key,), sources or {})


def _sent_by_upstream(upstream: Upstream) -> Sent:
    yield from _templates(("headers",), upstream.headers)
    yield from _expressions(("params",), upstream.params)


def _templates(at: KeyPath, texts: Mapping[str, str]) -> Sent:
    for name, text in texts.items():
        yield from _template((*at, name), text)


def _template(at: KeyPath, text: str) -> Sent:
    for piece in parse_template(text):
        if not isinstance(piece, str):
            yield from ((at, name) for name in piece.names)


def _expressions(at: KeyPath, sources: Mapping[str, str | Constant]) -> Sent:
    for name, source in sources.items():
        if isinstance(source, str):
            yield from _expression((*at, name), source)


def _expression(at: KeyPath, text: str) -> Sent:
    yield from ((at, f"{name.root}.{name.field}") for name in compile_expression(text, at).names)


def _reasons(read: str, credentials: CredentialNames) -> Iterator[str]:
    root, _, name = read.partition(".")
    field = name.lower().replace("_", "-")
    if root == "headers" and field in credentials.fields:
        yield f'sends the client\'s key on: "{field}" is the field of an API key of this gateway'
    if root == "headers" and field == "cookie" and credentials.cookies:
        cookies = ", ".join(sorted(credentials.cookies))
        yield (
            f"sends the client's token on, which this gateway reads from a cookie ({cookies}); name the other cookies"
            " in forward_cookies of the call, or as cookies.NAME"
        )
    if root == "cookies" and name in credentials.cookies:
        yield f'sends the client\'s token on: "{name}" is a cookie with a token for this gateway'
