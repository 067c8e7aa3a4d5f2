"""Checks and warnings about ``[limits.NAME]``, and about the keys of routes that refer to it."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import loaded, mistakes, write
from umbel.cli.options import load_with_warnings

LIMIT = '[limits.l]\nkey = "client.ip"\nrate = "1/s"\nburst = 5\n'
SHAPE = '[[routes]]\npath = "/r"\nanswer.shape = "path"\n'
MACHINES = '[auth.machines]\nkind = "mtls"\nallow = ["dns:batch.internal"]\n'


def keyed(key: str) -> str:
    return LIMIT.replace("client.ip", key)


def test_a_name_that_no_section_has_is_a_mistake(tmp_path: Path) -> None:
    text = LIMIT.replace("limits.l", "limits.per_ip") + SHAPE + 'limits = "per_pi"\n'
    assert mistakes(tmp_path, text + SHAPE.replace("/r", "/s") + 'limits = ["per_ip", "x", "per_ip"]\n') == [
        'umbel.toml:8: routes[0].limits: "per_pi" is no section of [limits]; did you mean "per_ip"?',
        'umbel.toml:12: routes[1].limits[1]: "x" is no section of [limits]; write the section [limits.x]',
        'umbel.toml:12: routes[1].limits[2]: "per_ip" is named twice; a request would spend twice what it costs; remove one',
    ]


@pytest.mark.parametrize(
    "text",
    [
        'include = ["none.toml"]\n' + SHAPE + 'limits = "l"\n',
        LIMIT.replace("limits", "limist") + SHAPE + 'limits = "l"\n',
        "limits = 3\n" + SHAPE + 'limits = "l"\n',
        LIMIT.replace('"1/s"', '"1"') + SHAPE + 'limits = "l"\n',
        LIMIT.replace("burst = 5", "") + SHAPE + 'limits = "l"\n',
        "[limits]\nl = 3\n" + SHAPE + 'limits = "l"\n',
    ],
)
def test_a_name_is_not_reported_beside_the_mistake_that_hides_its_section(text: str, tmp_path: Path) -> None:
    assert len(found := mistakes(tmp_path, text)) == 1
    assert "routes" not in found[0]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("clinet.ip", '"clinet" is unknown; a limit reads auth, client, path, query, headers, cookies; did you mean "client"?'),
        ("body.id", '"body" is unknown; a limit reads auth, client, path, query, headers, cookies'),
        ("client.port", "write client.ip: of the client only the address is known"),
        ("headers", "name one member of headers, such as headers.x_tenant"),
        ("headers.X_tenant", "write the name of a header in lower case: headers.x_tenant"),
        ("headers.connection", '"connection" belongs to one connection and is always null here; remove headers.connection'),
        ("query", "name one member of query, such as query.tenant"),
    ],
)  # fmt: skip
def test_a_key_that_reads_what_a_limit_does_not_know_is_a_mistake(key: str, reason: str, tmp_path: Path) -> None:
    text = keyed(key) + SHAPE + 'limits = "l"\n'
    assert mistakes(tmp_path, text) == [f"umbel.toml:2: limits.l.key: {reason}"]


def test_a_cost_is_checked_like_a_key(tmp_path: Path) -> None:
    text = LIMIT + 'cost = "to_number(quer.n)"\n' + SHAPE + 'limits = "l"\n'
    (found,) = mistakes(tmp_path, text)
    assert found.startswith('umbel.toml:5: limits.l.cost: "quer" is unknown')


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        ("`-1`", "`-1` is no number of 0 or more; write a number, such as `2`"),
        ("'2'", "'2' is no number of 0 or more; write a number, such as `2`"),
        ("`6`", "the cost is more than burst (5), so no request is ever admitted; raise burst"),
        ("`0`", ""),
        ("`5`", ""),
        ("to_number(query.n)", ""),
    ],
)
def test_a_constant_that_can_be_no_cost_is_a_mistake(cost: str, reason: str, tmp_path: Path) -> None:
    text = LIMIT + f'cost = "{cost}"\n' + SHAPE + 'limits = "l"\n'
    assert mistakes(tmp_path, text) == ([f"umbel.toml:5: limits.l.cost: {reason}"] if reason else [])


def test_a_limit_that_reads_auth_in_a_route_without_auth_is_a_mistake(tmp_path: Path) -> None:
    text = MACHINES + keyed("auth.sub || client.ip") + SHAPE + 'limits = "l"\n'
    text += SHAPE.replace("/r", "/s") + 'auth = "none"\nlimits = "l"\n'
    text += SHAPE.replace("/r", "/t") + 'auth = "machines"\nlimits = "l"\n'
    assert mistakes(tmp_path, text) == [
        f'umbel.toml:{line}: routes[{index}].limits: "l" reads auth, but the route has no auth, such as auth = ["users"]'
        for line, index in ((11, 0), (16, 1))
    ]


def test_a_member_that_auth_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    text = MACHINES + keyed("auth.tenant") + SHAPE + 'auth = "machines"\nlimits = "l"\n'
    (found,) = mistakes(tmp_path, text)
    assert found.endswith(
        'auth has no "tenant", only kind, name, sub, scopes, claims; a claim of a token is auth.claims.tenant'
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client.ip.x", "client.ip"),
        ("client.ip.x.y", "client.ip"),
        ("client.ip[0]", "client.ip"),
        ("client.ip[0].x", "client.ip"),
        ("client.ip[:2]", "client.ip"),
        ("client.ip[*].x", "client.ip"),
        ("client.ip[]", "client.ip"),
        ("client.ip.*", "client.ip"),
        ("client.ip[?a == 'b']", "client.ip"),
        ("client.ip | x", "client.ip"),
        ("(client.ip)[0]", "client.ip"),
        ("auth.sub.x", "auth.sub"),
        ("auth.kind.x || client.ip", "auth.kind"),
        ("join('', [auth.name.x])", "auth.name"),
        ("path.id.x", "path.id"),
        ("query.a.b", "query.a"),
        ("headers.a.b", "headers.a"),
        ("cookies.a.b && 'x'", "cookies.a"),
    ],
)
def test_a_key_that_reads_a_member_of_a_text_is_a_mistake(key: str, value: str, tmp_path: Path) -> None:
    text = MACHINES + keyed(key) + SHAPE.replace("/r", "/<id>") + 'auth = "machines"\nlimits = "l"\n'
    assert mistakes(tmp_path, text) == [
        f"umbel.toml:5: limits.l.key: {value} is one value, so its members and items are always null; write {value} alone"
    ]


def test_a_key_that_reads_a_member_of_the_list_of_scopes_is_a_mistake(tmp_path: Path) -> None:
    text = MACHINES + keyed("auth.scopes.x") + SHAPE + 'auth = "machines"\nlimits = "l"\n'
    (found,) = mistakes(tmp_path, text)
    assert "auth.scopes is a list of texts" in found


@pytest.mark.parametrize(
    "key",
    [
        "auth.claims.client.ip.x",
        "auth.claims.orgs[0].id",
        "auth.claims.list[?client.ip.x == 'a'].query.a.b | [0]",
        "auth.claims.list[*].client.ip.x | [0]",
        "auth.scopes[0]",
        "auth.scopes[?@ == 'admin'] | [0]",
        "client.ip | length(@) | to_string(@)",
        "[client.ip, query.a]",
        "join('/', [client.ip, path.id])",
        "client.ip == '::1' && 'own' || client.ip",
    ],
)
def test_a_key_that_may_have_a_value_is_no_mistake(key: str, tmp_path: Path) -> None:
    text = MACHINES + keyed(key) + SHAPE.replace("/r", "/<id>") + 'auth = "machines"\nlimits = "l"\n'
    assert mistakes(tmp_path, text) == []


def warnings(directory: Path, text: str) -> list[str]:
    return [str(each) for each in load_with_warnings(str(write(directory, text))).warnings if "limits" in str(each)]


def test_a_limit_that_no_route_has_is_a_warning(tmp_path: Path) -> None:
    assert [each for each in warnings(tmp_path, LIMIT + SHAPE) if "no route" in each]


@pytest.mark.parametrize(
    "key", ["client.ip", "headers.a || client.ip", "path.id", "[headers.a]", "`1`", "headers.a == 'x'"]
)
def test_a_key_that_is_never_null_gives_no_warning(key: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, keyed(key) + SHAPE.replace("/r", "/<id>") + 'limits = "l"\n') == []


@pytest.mark.parametrize(
    "key",
    [
        "headers.a",
        "cookies.a",
        "query.a",
        "path.idd",
        "headers.a || query.b",
        "join('-', [headers.a, client.ip])",
        "headers.a && path.id",
    ],
)
def test_a_key_that_can_be_null_is_a_warning(key: str, tmp_path: Path) -> None:
    (found,) = warnings(tmp_path, keyed(key) + SHAPE.replace("/r", "/<id>") + 'limits = "l"\n')
    assert "count together, as one client" in found


def test_an_included_file_may_have_limits(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text(LIMIT)
    config = loaded(tmp_path, 'include = ["limits.toml"]\n' + SHAPE + 'limits = "l"\n')
    assert config.limits["l"].burst == 5


def test_limits_of_the_server_are_checked_too(tmp_path: Path) -> None:
    text = LIMIT + MACHINES + keyed("auth.sub").replace("limits.l", "limits.sub") + SHAPE + 'limits = "l"\n'
    assert mistakes(tmp_path, text + '[server]\nlimits = ["l", "sub", "x", "l"]\n') == [
        'umbel.toml:15: routes[0].limits: "l" is in limits of [server] already; a request would spend twice what it costs; remove one',
        'umbel.toml:17: server.limits[1]: "sub" reads auth, which is not known before the route; name it in limits of routes',
        'umbel.toml:17: server.limits[2]: "x" is no section of [limits]; write the section [limits.x]',
        'umbel.toml:17: server.limits[3]: "l" is named twice; a request would spend twice what it costs; remove one',
    ]
    assert mistakes(tmp_path, 'include = ["none.toml"]\n' + SHAPE + '[server]\nlimits = "l"\n')[1:] == []


UPSTREAM = '[upstreams.up]\nurls = ["http://127.0.0.1:9"]\n'
CALLING = '[[routes]]\npath = "/r"\ncalls.c = { upstream = "up", path = "/" }\n'


def test_limits_of_an_upstream_are_checked_too(tmp_path: Path) -> None:
    names = 'limits = ["l", "x", "l", "all", "sub", "both"]\n'
    text = LIMIT + "".join(
        keyed(key).replace("limits.l", f"limits.{name}")
        for name, key in (("all", "'a'"), ("sub", "auth.sub"), ("both", "client.ip"))
    )
    text += UPSTREAM + names + CALLING + 'limits = "both"\n[server]\nlimits = "all"\n'
    assert mistakes(tmp_path, text) == [
        f"umbel.toml:19: upstreams.up.limits[{place}]: {reason}"
        for place, reason in (
            (1, '"x" is no section of [limits]; write the section [limits.x]'),
            (2, '"l" is named twice; a call would spend twice what it costs; remove one'),
            (3, '"all" is in limits of [server] too; a request and its calls would both spend; remove one'),
            (4, '"sub" reads auth, which no request has: the configuration has no section [auth.NAME]'),
            (
                5,
                '"both" is in limits of routes[0] too, which calls this upstream; a request and its calls would both spend; remove one',
            ),
        )
    ]


def test_a_limit_that_only_an_upstream_has_gives_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, LIMIT + UPSTREAM + 'limits = "l"\n' + CALLING) == []


@pytest.mark.parametrize(
    ("key", "auth", "missing"),
    [
        ("auth.sub", 'auth = "none"\n', "auth.sub"),
        ("auth.sub", 'auth = "machines"\n', ""),
        ("auth.sub || client.ip", 'auth = "none"\n', ""),
        ("path.id", 'auth = "none"\n', "path.id"),
    ],
)
def test_what_a_calling_route_lacks_is_a_warning(key: str, auth: str, missing: str, tmp_path: Path) -> None:
    text = MACHINES + keyed(key) + UPSTREAM + 'limits = "l"\n' + CALLING + auth
    assert [f"requests without {missing} count together" in each for each in warnings(tmp_path, text)] == (
        [True] if missing else []
    )


def test_sync_of_a_limit_of_each_worker_is_a_warning(tmp_path: Path) -> None:
    text = LIMIT + 'shared = "worker"\nsync = "1s"\n' + SHAPE + 'limits = "l"\n'
    assert warnings(tmp_path, text) == [
        f'{tmp_path}/umbel.toml:6: limits.l.sync: has no effect with shared = "worker"; remove one of them'
    ]
