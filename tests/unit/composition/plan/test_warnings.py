"""Warnings about values of the client: repeated query parameters, and redirects to a host that the client names."""

from __future__ import annotations

import pytest

from tests.support.composition.composing import config
from umbel.composition.plan.warnings import warn

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
