"""Warnings about values of the client: repeated query parameters, and redirects to a host that the client names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.composition.composing import config
from tests.support.gateway.configs import write
from umbel.composition.plan.warnings import warn
from umbel.config.loading.load import load

CALL = '[[routes]]\npath = "/r/<id>"\n[routes.calls.a]\nupstream = "u"\n'


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ('path = "/p"\nparams = { role = { value = "user" } }\nforward_query = ["*"]\n', "role"),
        ('path = "/p?role=user"\nforward_query = ["*"]\n', "role"),
        ('path = "/p{?id}"\nforward_query = ["id"]\n', "id"),
        ('path = "/p"\nparams = { role = { value = "user" } }\nforward_query = ["q"]\n', None),
        ('path = "/p?role=user"\n', None),
        ('path = "/p"\nforward_query = ["*"]\n', None),
    ],
)
def test_forwarding_a_query_parameter_that_the_call_sets_is_a_warning(call: str, name: str | None) -> None:
    found = list(warn(config(CALL + call)))
    assert [at for at, _ in found] == ([("routes", 0, "calls", "a", "forward_query")] if name else [])
    assert all(f'"{name}" of the client' in reason for _, reason in found)


@pytest.mark.parametrize(
    ("field", "template", "warned"),
    [
        ("location", "{query.next}", True),
        ("location", "https://{query.host}/a", True),
        ("location", "https:{query.host}", True),
        ("location", "//a.{path.id}", True),
        ("location", "{a.url}/{query.next}", False),
        ("location", "/{query.next}", False),
        ("location", "https://a.example/{query.next}", False),
        ("refresh", "0;url={query.next}", True),
        ("refresh", "0; url = '{query.next}'", True),
        ("refresh", "0;url=/{query.next}", False),
        ("x-next", "{query.next}", False),
    ],
)
def test_a_redirect_to_a_host_that_the_client_names_is_a_warning(field: str, template: str, warned: bool) -> None:
    text = CALL.replace(
        "[routes.calls.a]", f'query = ["next", "host"]\nanswer.headers.{field} = "{template}"\n[routes.calls.a]'
    )
    found = [at for at, _ in warn(config(text + 'path = "/p"\n'))]
    assert found == ([("routes", 0, "answer", "headers", field)] if warned else [])


OF_CALLS = """
timeout = "1s"
max_body = "1MB"
coalesce = true
redirects = "follow"
user_agent = "me"
deadline_header = "x-left"
"""
UNUSED = ["timeout", "max_body", "coalesce", "redirects", "user_agent", "deadline_header"]
ISSUER = """
[auth.a]
kind = "jwt"
algorithms = ["RS256"]
issuers = [{ iss = "i", jwks = { upstream = "u", path = "/k" } }]
"""
PROXY = '[[routes]]\npath = "/<path:rest>"\nproxy = { upstream = "u"%s }\n'


@pytest.mark.parametrize(
    ("upstream", "routes", "keys"),
    [
        (OF_CALLS, PROXY % "", UNUSED),
        (OF_CALLS, PROXY % ', mirror = { upstream = "u", share = "1%" }, split = { v = "1%" }', UNUSED),
        (OF_CALLS + 'health = { path = "/" }\n', PROXY % "", [key for key in UNUSED if key != "user_agent"]),
        ('coalesce = false\nredirects = "fail"\ndeadline_header = false\n', PROXY % "", []),
        (OF_CALLS, PROXY % "" + CALL + 'path = "/p"\n', []),
        (
            OF_CALLS,
            PROXY % "" + CALL.replace('"u"', '"v"') + 'path = "/p"\nmirror = { upstream = "u", share = "1%" }\n',
            [],
        ),
        (OF_CALLS, "", []),
        (OF_CALLS, PROXY % "" + ISSUER, []),
    ],
    ids=[
        "a proxy",
        "split and mirror",
        "health checks",
        "no effect",
        "a call",
        "the mirror of a call",
        "unused",
        "a key set",
    ],
)
def test_a_key_about_calls_of_an_upstream_without_calls_is_a_warning(
    upstream: str, routes: str, keys: list[str]
) -> None:
    text = f'[upstreams.u]\nurls = ["http://a"]\n{upstream}[upstreams.v]\nurls = ["http://b"]\n{routes}'
    assert [at for at, _ in warn(config(text))] == [("upstreams", "u", key) for key in keys]


@pytest.mark.parametrize(("calls", "warned"), [(True, False), (False, True)])
def test_a_default_is_no_warning_where_an_upstream_with_calls_has_it(calls: bool, warned: bool, tmp_path: Path) -> None:
    text = '[defaults.upstream]\ntimeout = "1s"\n'
    text += '[upstreams.u]\nurls = ["http://a"]\n[upstreams.v]\nurls = ["http://b"]\n'
    text += PROXY % "" + (CALL.replace('"u"', '"v"') + 'path = "/p"\n' if calls else "")
    loaded = load(write(tmp_path, text))
    assert [at for at, _ in warn(loaded)] == ([("upstreams", "u", "timeout")] if warned else [])
