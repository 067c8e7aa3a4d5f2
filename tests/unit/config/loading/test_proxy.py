"""The section ``proxy`` of a route: its defaults, and every mistake and warning with its line."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, write
from umbel.cli import main
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.warnings import warn
from umbel.config.schema.sections import Config

OTHER = '[upstreams.v]\nurls = ["http://v"]\n'
PROXY = UPSTREAM + OTHER + ROUTE + '[routes.proxy]\nupstream = "u"\n'
"""The keys of the proxy begin in line 9."""

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "an unknown upstream": (
        UPSTREAM + ROUTE + 'proxy = { upstream = "w" }\n',
        ['5: routes[0].proxy.upstream: there is no upstream "w"; add [upstreams.w]'],
    ),
    "unknown upstreams elsewhere": (
        PROXY + 'fallback = ["v", "w"]\nsplit = { w = "5%" }\nmirror = { upstream = "w", share = "5%" }\n',
        [
            '9: routes[0].proxy.fallback[1]: there is no upstream "w"; add [upstreams.w]',
            '10: routes[0].proxy.split.w: there is no upstream "w"; add [upstreams.w]',
            '11: routes[0].proxy.mirror.upstream: there is no upstream "w"; add [upstreams.w]',
        ],
    ),
    "no upstream": (UPSTREAM + ROUTE + "proxy = {}\n", ["5: routes[0].proxy.upstream: is missing"]),
    "a proxy beside calls": (
        UPSTREAM + ROUTE + CALL + 'proxy = { upstream = "u" }\n',
        ["6: routes[0].proxy: a route with proxy makes no calls; remove one of both"],
    ),
    "a proxy beside a response": (
        UPSTREAM + ROUTE + 'respond = { json = {} }\nproxy = { upstream = "u" }\n',
        ["6: routes[0].proxy: respond and proxy exclude each other: a request has one answer"],
    ),
    "a proxy beside a redirect": (
        UPSTREAM + ROUTE + 'redirect = { to = "/" }\nproxy = { upstream = "u" }\n',
        ["6: routes[0].proxy: redirect and proxy exclude each other: a request has one answer"],
    ),
    "a proxy with an answer": (
        UPSTREAM + ROUTE + 'proxy = { upstream = "u" }\nanswer = { etag = false }\n',
        ["6: routes[0].answer: etag of answer has no effect in a route with proxy; remove it"],
    ),
    "a proxy with a stream": (
        UPSTREAM + ROUTE + 'proxy = { upstream = "u" }\nstream = true\n',
        ["6: routes[0].stream: a stream sends the outcomes of calls, but this route has none"],
    ),
    "a proxy with combine": (
        UPSTREAM + ROUTE + 'proxy = { upstream = "u" }\ncombine = "first"\n',
        ["6: routes[0].combine: combine counts calls, but this route has none"],
    ),
    "a fallback twice, and the upstream itself": (
        PROXY + 'fallback = ["v", "u", "v"]\n',
        [
            '9: routes[0].proxy.fallback: "u" is the upstream itself; name others in fallback',
            '9: routes[0].proxy.fallback: "v" is in fallback more than once; write it once',
        ],
    ),
    "shares of more than all": (
        PROXY + 'split = { v = "60%", w = "41%" }\n[upstreams.w]\nurls = ["http://w"]\n',
        ["9: routes[0].proxy.split: the shares are 101% together, and they may be at most 100%"],
    ),
    "a share of the upstream itself": (
        PROXY + 'split = { u = "60%" }\n',
        [
            '9: routes[0].proxy.split: "u" is the upstream of this table, which gets the rest; write only other upstreams',
        ],
    ),
    "a split_key without split": (
        PROXY + 'split_key = "client.ip"\n',
        ["9: routes[0].proxy.split_key: split_key has an effect only beside split"],
    ),
    "a split_key that reads no request": (
        PROXY + 'split = { v = "5%" }\nsplit_key = "`1`"\n',
        ["10: routes[0].proxy.split_key: split_key reads nothing of the request; name a part, such as client.ip"],
    ),
    "a mirror to the upstream itself": (
        PROXY + 'mirror = { upstream = "u", share = "5%" }\n',
        ['9: routes[0].proxy.mirror: "u" gets the request itself, so no copy is sent to it; write another upstream'],
    ),
    "methods that leave out what websocket and mirror need": (
        PROXY
        + 'websocket = true\nmirror = { upstream = "v", share = "5%" }\n'
        + '[[routes]]\npath = "/b"\nmethods = ["POST"]\n'
        + 'proxy = { upstream = "u", websocket = true, mirror = { upstream = "v", share = "5%" } }\n',
        [
            "14: routes[1].proxy: a WebSocket begins with a GET, which methods leaves out; add GET, or remove websocket",
            "14: routes[1].proxy: mirror copies only methods that the route does not have; write some of them in"
            " mirror.methods",
        ],
    ),
    "a time of zero, and a word": (
        PROXY + 'first_byte = "0s"\nidle_timeout = "never"\n',
        [
            "9: routes[0].proxy.first_byte: a duration must be above zero",
            '10: routes[0].proxy.idle_timeout: "never" is not a duration; write a number and a unit, such as "250ms" or "2s"',
        ],
    ),
    "an origin that is none": (
        PROXY + 'websocket = { origins = ["app.example"] }\n',
        [
            '9: routes[0].proxy.websocket.origins[0]: "app.example" is not an origin; write scheme, host and port without a path, such as "https://app.example", or "https://*.app.example" for any one label'
        ],
    ),
    "a cookie's domain with a port, and a path without a slash": (
        PROXY + 'rewrite = { cookie_domain = { "a:1" = "b" }, cookie_path = { "/a" = "b" } }\n',
        [
            '9: routes[0].proxy.rewrite.cookie_domain."a:1": "a:1" is not a domain; write a name such as "shop.example", without port',
            '9: routes[0].proxy.rewrite.cookie_path."/a": "b" is not the path of a cookie; write a "/" followed by visible ASCII without ";"',
        ],
    ),
    "a field in set and in remove": (
        PROXY + 'request_headers = { set = { x-a = "1" }, remove = ["X-A"] }\n',
        [
            '9: routes[0].proxy.request_headers.remove: "x-a" is in set and in remove; set replaces the field already, so remove it from remove'
        ],
    ),
    "two proxy routes with all methods and one path": (
        PROXY + '[[routes]]\npath = "/r"\nproxy = { upstream = "v" }\n',
        ["10: routes[1].path: any method of /r is a route already, at umbel.toml:6; remove one of them"],
    ),
}
WARNINGS: dict[str, tuple[str, list[str]]] = {
    "keys of compositions": (
        UPSTREAM + ROUTE + 'deadline = "1s"\nmax_body = "1MB"\nbody = "bytes"\nproxy = { upstream = "u" }\n',
        [
            "5: routes[0].deadline: has no effect in a proxy route: its times are first_byte, idle_timeout and max_lifetime of proxy",
            "6: routes[0].max_body: has no effect in a proxy route: write max_body of proxy",
            "7: routes[0].body: has no effect in a proxy route: bodies are passed on as they are",
        ],
    ),
    "compress in the route": (
        UPSTREAM + ROUTE + 'compress = true\nproxy = { upstream = "u" }\n[compress]\n',
        [
            "5: routes[0].compress: has no effect in a proxy route: responses are passed on in the coding that the upstream has chosen",
        ],
    ),
    "credentials without auth": (
        PROXY + "forward_credentials = true\n",
        [
            "9: routes[0].proxy.forward_credentials: has no effect: no section in auth of the route reads Authorization, so it is passed on anyway"
        ],
    ),
    "fields that CORS writes, and that [headers] removes": (
        PROXY
        + 'response_headers = { set = { access-control-max-age = "1", x-kept = "1" }, add = { server = "x" } }\n'
        + '[cors]\norigins = ["https://a.example"]\n[headers]\nremove = ["server"]\nset = { x-kept = "2" }\n',
        [
            "9: routes[0].proxy.response_headers.add.server: has no effect: [headers] removes this field from every response",
            "9: routes[0].proxy.response_headers.set.access-control-max-age: has no effect: [cors] writes this field; write cors = false to do without it",
        ],
    ),
}


def check(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    write(folder, text)
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["check"])
    return result.exit_code, result.stderr.splitlines()


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_reported_with_its_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, lines = MISTAKES[what]
    assert check(text, tmp_path, monkeypatch) == (78, [f"umbel.toml:{line}" for line in lines])


@pytest.mark.parametrize(
    ("places", "warned"),
    [(["header"], False), (["cookie:t", "header"], False), (["cookie:t"], True), (["query:t"], True)],
)
def test_forwarded_credentials_need_a_section_that_reads_authorization(places: list[str], warned: bool) -> None:
    issuer = {"iss": "https://id", "keys": "id.pem"}
    users = {"kind": "jwt", "algorithms": ["ES256"], "issuers": [issuer], "from": places}
    machines = {"kind": "mtls", "allow": ["dns:a"]}
    route = {"path": "/r", "auth": ["machines", "users"], "proxy": {"upstream": "u", "forward_credentials": True}}
    upstreams = {"u": {"urls": ["http://u"]}}
    auth = {"users": users, "machines": machines}
    config = Config.model_validate({"upstreams": upstreams, "auth": auth, "routes": [route]})
    assert [at for at, _ in warn(config)] == ([("routes", 0, "proxy", "forward_credentials")] if warned else [])


@pytest.mark.parametrize("what", WARNINGS)
def test_a_key_without_effect_is_a_warning(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, lines = WARNINGS[what]
    code, said = check(text, tmp_path, monkeypatch)
    assert (code, sorted(line for line in said if "left out of algorithms" not in line)) == (
        0,
        sorted(f"warning: umbel.toml:{line}" for line in lines),
    )


@pytest.mark.parametrize(
    "more",
    [
        "",
        '[[routes]]\npath = "/r"\ncalls.c = { upstream = "u", path = "/" }\n',
        '[[routes]]\npath = "/r"\nmatch = "headers.x_v"\nproxy = { upstream = "v" }\n',
        '[[routes]]\npath = "/r"\nmethods = ["PUT"]\nproxy = { upstream = "v" }\n',
    ],
)
def test_a_proxy_route_is_valid_also_beside_routes_that_name_a_method(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(PROXY + more, tmp_path, monkeypatch) == (0, [])


def test_every_key_reaches_the_plan() -> None:
    proxy = {
        "upstream": "u",
        "fallback": ["v"],
        "first_byte": "off",
        "idle_timeout": "1m",
        "max_lifetime": "1h",
        "max_body": "1GiB",
        "preserve_host": True,
        "forward_credentials": True,
        "split": {"v": "25%"},
        "split_key": "headers.x_user",
        "mirror": {"upstream": "v", "share": "5%", "methods": ["GET", "HEAD"]},
        "websocket": {"origins": ["https://*.app.example"]},
    }
    upstreams = {name: {"urls": [f"http://{name}"]} for name in ("u", "v")}
    config = Config.model_validate({"upstreams": upstreams, "routes": [{"path": "/r", "proxy": proxy}]})
    plan = compile_route(config, 0).proxy
    assert plan is not None
    assert plan.websocket is not None
    assert plan.mirror is not None
    assert (plan.upstream, plan.fallback, [*plan.destinations]) == ("u", ("v",), ["u", "v"])
    assert (plan.first_byte, plan.idle_timeout, plan.max_lifetime, plan.max_body) == (None, 60, 3600, 2**30)
    assert (plan.preserve_host, plan.forward_credentials) == (True, True)
    assert plan.choice is not None and plan.choice.key is not None
    assert (plan.choice.split.shares, plan.choice.key.text) == ({"v": 0.25}, "headers.x_user")
    assert (plan.vary, plan.reads_request) == (("x-user",), True)
    assert (plan.mirror.share, plan.mirror.methods) == (0.05, ("GET", "HEAD"))
    allowed = [
        plan.websocket.allows(origin) for origin in ("https://a.app.example", "https://app.example", "null", None)
    ]
    assert allowed == [True, False, False, True]


def test_the_defaults_have_no_limit_but_times() -> None:
    config = Config.model_validate(
        {"upstreams": {"u": {"urls": ["http://u"]}}, "routes": [{"path": "/r", "proxy": {"upstream": "u"}}]}
    )
    plan = compile_route(config, 0).proxy
    assert plan is not None
    assert (plan.first_byte, plan.idle_timeout, plan.max_lifetime, plan.max_body) == (10, 300, None, None)
    assert (plan.websocket, plan.choice, plan.mirror, plan.fallback) == (None, None, None, ())
