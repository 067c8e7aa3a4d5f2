"""Warnings about conditions that a missing claim makes true."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.plan import Plan
from umbel.composition.plan.warnings import warn
from umbel.composition.text.expression import is_false
from umbel.config.schema.sections import Config

MACHINES = {"kind": "mtls", "allow": ["dns:a"]}
QUERY = {"t": {"type": "str"}, "given": {"type": "str", "required": True}, "usual": {"type": "str", "default": "x"}}


def users(*required: str) -> dict[str, Any]:
    issuers = [{"iss": "https://id", "keys": "id.pem"}]
    return {"kind": "jwt", "algorithms": ["ES256"], "issuers": issuers, "required": ["exp", *required]}


def config_of(allow: str, *required: str, **sections: Any) -> Config:
    sections = sections or {"users": users(*required)}
    access = {"auth": [*sections], "allow": allow}
    route = {"path": "/<user>", "query": QUERY, "answer": {"shape": "path"}, **access}
    return Config.model_validate({"auth": sections, "routes": [route]})


def warned(allow: str, *required: str, **sections: Any) -> list[str]:
    found = list(warn(config_of(allow, *required, **sections)))
    assert all(at == ("routes", 0, "allow") for at, _ in found)
    return [reason for _, reason in found]


def paths(reasons: list[str]) -> list[str]:
    return [reason.removeprefix("may be true because ").partition(" ")[0] for reason in reasons]


def admits(plan: Plan, claims: dict[str, Any], **query: Any) -> bool:
    assert plan.allow is not None
    identity = {"kind": "jwt", "name": "users", "sub": "ada", "scopes": [], "claims": claims}
    values = {"t": None, "given": "g", "usual": "x", **query}
    context = {"auth": identity, "path": {"user": "ada"}, "query": values, "headers": {"x_t": None}, "cookies": {}}
    return not is_false(plan.allow.evaluate({**context, "client": {"ip": "::1"}}))


@pytest.mark.parametrize(
    ("allow", "found"),
    [
        ("auth.claims.tenant == query.t", ["auth.claims.tenant"]),
        ("query.t == auth.claims.tenant", ["auth.claims.tenant"]),
        ("auth.claims.tenant == headers.x_t", ["auth.claims.tenant"]),
        ("auth.claims.tenant == auth.claims.other", ["auth.claims.tenant", "auth.claims.other"]),
        ("auth.claims.role != 'guest'", ["auth.claims.role"]),
        ("path.user != auth.claims.user", ["auth.claims.user"]),
        ("!(auth.claims.role == 'guest')", ["auth.claims.role"]),
        ("!(auth.claims.level < `3`)", ["auth.claims.level"]),
        ("auth.sub == 'eve' || auth.claims.role != 'guest'", ["auth.claims.role"]),
        ("auth.claims.a.b != 'x'", ["auth.claims.a.b"]),
        ("auth.claims.a && auth.claims.a.b != 'x'", ["auth.claims.a.b"]),
        ("auth.claims | role != 'guest'", ["auth.claims.role"]),
        ("auth.claims.roles[0] != 'guest'", ["auth.claims.roles"]),
        ("auth.claims.\"https://x/role\" != 'guest'", ["auth.claims.https://x/role"]),
    ],
)
def test_a_comparison_that_a_missing_claim_makes_true_is_a_warning(allow: str, found: list[str]) -> None:
    assert paths(warned(allow, "sub")) == found
    assert admits(compile_route(config_of(allow, "sub"), 0), {"a": {"c": 1}})


@pytest.mark.parametrize(
    "allow",
    [
        "auth.claims.tenant == path.user",
        "auth.claims.tenant == query.given",
        "auth.claims.tenant == query.usual",
        "auth.claims.tenant == auth.sub",
        "auth.claims.tenant == auth.name",
        "auth.claims.role == 'admin'",
        "auth.claims.admin == `true`",
        "auth.claims.role",
        "auth.claims.level > `3`",
        "auth.claims.role && auth.claims.role != 'guest'",
        "auth.claims.role != `null` && auth.claims.role != 'guest'",
        "auth.claims.tenant && auth.claims.tenant == query.t",
        "auth.claims.role == 'a' && auth.claims.role != query.t",
        "!(auth.claims.role != 'admin')",
        "not_null(auth.claims.role, 'guest') != 'guest'",
        "(auth.claims.role || 'guest') != 'guest'",
        "contains(auth.claims.groups, 'support')",
        "type(auth.claims.groups) == 'array' && contains(auth.claims.groups, 'support')",
    ],
)
def test_a_condition_that_a_missing_claim_makes_false_is_no_warning(allow: str) -> None:
    assert warned(allow, "sub") == []
    assert not admits(compile_route(config_of(allow, "sub"), 0), {})


@pytest.mark.parametrize(
    "allow", ["!(auth.claims.role) || auth.claims.role == query.t", "auth.claims.blocked == `null`"]
)
def test_a_condition_that_admits_a_missing_claim_explicitly_is_no_warning(allow: str) -> None:
    assert warned(allow, "sub") == []


def test_a_claim_that_every_token_has_is_no_warning() -> None:
    allow = "auth.claims.tenant == query.t && auth.claims.role != 'guest'"
    assert warned(allow, "sub", "tenant", "role") == []
    assert paths(warned(allow, a=users("tenant", "role"), b=users("role"))) == ["auth.claims.tenant"]


def test_a_subject_that_a_token_may_lack_is_a_warning() -> None:
    assert paths(warned("auth.sub == query.t")) == ["auth.sub"]
    assert warned("auth.sub == query.t", "sub") == warned("auth.sub == query.t", machines=MACHINES) == []


def test_the_warning_says_which_sections_lack_the_claim_and_what_to_write() -> None:
    allow = "auth.claims.role != 'guest'"
    test = 'test it first, such as "auth.claims.role && …"'
    assert warned(allow, a=users("role"), b=users(), c=users()) == [
        "may be true because auth.claims.role is null: credentials of [auth.b] and [auth.c] may lack it;"
        f' write "role" into required of [auth.b] and [auth.c], or {test}'
    ]
    assert warned(allow, a=users("role"), machines=MACHINES) == [
        f"may be true because auth.claims.role is null: credentials of [auth.machines] may lack it; {test}"
    ]
