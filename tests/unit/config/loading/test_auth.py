"""The sections ``[auth.NAME]``: their kinds, their mistakes, and included files."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import trustme

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, loaded, mistakes
from tests.support.source.jsonschema import conforms
from umbel.config.schema.access.auth import ApiKeyAuth, JwtAuth, MtlsAuth
from umbel.config.schema.reference.jsonschema import json_schema
from umbel.config.schema.section_tree import section_at
from umbel.config.schema.sections import Config

MACHINES = '[auth.machines]\nkind = "mtls"\nallow = ["dns:batch.internal"]\n'
THREE = (
    MACHINES + '[auth.partners]\nkind = "api-key"\nfile = "keys.toml"\n'
    '[auth.users]\nkind = "jwt"\nalgorithms = ["ES256"]\nissuers = [{ iss = "https://id", keys = "id.pem", audience = ["a"] }]\n'
)

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "kinds that do not exist": (
        '[auth.a]\nkind = "api-kye"\nfil = "x"\n[auth.b]\nfile = "x"\n[auth]\nc.kind = 3\nd = 3\n',
        [
            'umbel.toml:2: auth.a.kind: needs "jwt", "api-key" or "mtls", not "api-kye"; did you mean "api-key"?',
            'umbel.toml:4: auth.b.kind: is missing; write "jwt", "api-key" or "mtls"',
            'umbel.toml:7: auth.c.kind: needs "jwt", "api-key" or "mtls", not a whole number',
            "umbel.toml:8: auth.d: needs a table, not a whole number",
        ],
    ),
    "keys that a kind does not have": (
        '[auth.a]\nkind = "api-key"\nfil = "x"\n[auth.b]\nkind = "mtls"\nallow = ["dns:x"]\naudience = ["x"]\n',
        [
            'umbel.toml:3: auth.a.fil: is not a key of [auth.a]; did you mean "file"?',
            "umbel.toml:7: auth.b.audience: is not a key of [auth.b]; it belongs in [[auth.NAME.issuers]]",
        ],
    ),
    "a section for the public": (
        '[auth.none]\nkind = "mtls"\nallow = ["dns:x"]\n',
        [
            'umbel.toml:1: auth.none: "none" means that a route is public, so no section can have this name; write another one'
        ],
    ),
    "a kind in a variable that is not set": (
        '[auth.a]\nkind = "${KIND}"\n',
        ["umbel.toml:2: auth.a.kind: the environment variable KIND is not set; set it, or write ${KIND:-default}"],
    ),
    "no table of sections": (
        "auth = 3\n",
        ["umbel.toml:1: auth: needs a table for each kind of credential: [auth.NAME]"],
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(kind: str, tmp_path: Path) -> None:
    text, lines = MISTAKES[kind]
    assert mistakes(tmp_path, text) == lines


def test_a_kind_that_is_a_variable_chooses_the_section(tmp_path: Path) -> None:
    config = loaded(tmp_path, MACHINES.replace('"mtls"', '"${KIND}"'), environ={"KIND": "mtls"})
    assert isinstance(config.auth["machines"], MtlsAuth)


def test_included_files_add_sections_and_name_files_relative_to_themselves(tmp_path: Path) -> None:
    files = {
        "more/a.toml": THREE.removeprefix(MACHINES),
        "more/keys.toml": "keys = []\n",
        "more/id.pem": trustme.CA().cert_pem.bytes(),
    }
    data = 'include = ["more/a.toml"]\n' + MACHINES + UPSTREAM + ROUTE + CALL
    config = loaded(tmp_path, data, files)
    partners, users = config.auth["partners"], config.auth["users"]
    assert isinstance(partners, ApiKeyAuth)
    assert isinstance(users, JwtAuth)
    assert (list(config.auth), partners.file, users.issuers[0].keys) == (
        ["machines", "partners", "users"],
        str(tmp_path / "more" / "keys.toml"),
        str(tmp_path / "more" / "id.pem"),
    )


def test_a_name_in_two_files_is_a_mistake(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, 'include = ["a.toml"]\n' + MACHINES, {"a.toml": MACHINES})
    assert line == "a.toml:1: auth.machines: is already defined at umbel.toml:2"


def test_the_json_schema_accepts_each_kind_with_its_own_keys_only() -> None:
    schema = json_schema()
    route = '[[routes]]\npath = "/r"\nauth = {}\nscopes = ["a"]\nanswer.shape = "x"\n'

    def valid(text: str) -> bool:
        return conforms(tomllib.loads(text), schema, schema)

    assert valid(THREE)
    assert valid(route.format('"users"'))
    assert valid(route.format('["users", "partners"]'))
    assert not valid(route.format("[]"))
    assert not valid(THREE.replace('"api-key"', '"api"'))
    assert not valid(MACHINES + 'file = "x"\n')
    assert not valid('[auth.a]\nfile = "x"\n')
    assert "discriminator" not in str(schema)


def test_the_section_at_a_path_is_that_of_the_kind_in_the_data() -> None:
    data = tomllib.loads(THREE)
    found = {name: section_at(Config, ("auth", name), data) for name in data["auth"]}
    assert found == {"machines": MtlsAuth, "partners": ApiKeyAuth, "users": JwtAuth}
    assert section_at(Config, ("auth", "machines")) is JwtAuth
