"""``umbel explain``: the matching route, its dependencies, and each limit with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, write
from umbel.cli import main
from umbel.policy.split import Split

CONFIG = """\
[defaults.upstream]
timeout = "400ms"
[upstreams.users]
urls = ["http://127.0.0.1:1"]
max_queue = 5
[upstreams.orders]
urls = ["http://127.0.0.1:2"]
timeout = "9s"
max_body = "2MB"

[[routes]]
path = "/dashboard/<user_id>"
query = { limit = { type = "int", default = 20 }, tag = { required = true } }
deadline = "800ms"
[routes.calls.profile]
upstream = "users"
path = "/users/{user_id}"
timeout = "300ms"
forward_headers = ["authorization"]
[routes.calls.orders]
upstream = "orders"
path = "/orders{?user_id,limit}"
optional = true
default = []
[routes.calls.items]
each = "orders[*].sku"
upstream = "users"
path = "/items/{item}"
limit = 4
when = "profile.active"
null_on = [404]
optional = true
item_default = "${SECRET}"
[routes.answer]
shape = "{name: profile.name}"
status = 201

[[routes]]
path = "/things/<int:id>"
methods = ["PUT", "DELETE"]
combine = "first"
calls.a = { upstream = "users", path = "/${SECRET}" }
calls.b = { upstream = "users", path = "/b", decode = "text" }
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CONFIG)
    return tmp_path


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], env={"SECRET": "hunter2"})


TREE = """\
GET /dashboard/4%202?tag=a&x=1&limit=5: user_id = "4 2", tag = "a", limit = 5
The query parameter "x" is ignored: the route does not know it.

GET /dashboard/<user_id>  [umbel.toml:12]
  limits   deadline 800ms [umbel.toml:14] · max_body 1MB · server.max_body 16MiB · server.write_timeout 30s ·
           logs.calls.which notable
  query    limit: int, default 20
           tag: str, required
  combine  all
  answer   shape {name: profile.name}
  answer   status 201
  answer   varies with accept, authorization
  answer   cache_control private: no shared cache keeps it

at once
├─ profile: GET users /users/{user_id}  [umbel.toml:15]
│     required · passes on status 400, 401, 403, 404, 409, 410, 412, 422, 429
│     timeout 300ms [umbel.toml:18] · max_body 1MB
│     users: max_concurrency 100 · max_queue 5 [umbel.toml:5] · connect_timeout 1s · keepalive_expiry 4s ·
│        max_head 64KiB · max_fields 100 · deadline_header x-envoy-expected-rq-timeout-ms · forwarded true ·
│        public_only false
└─ orders: GET orders /orders{?user_id,limit}  [umbel.toml:20]
   │  optional · default []
   │  timeout 9s, cut by the deadline of 800ms [umbel.toml:8] · max_body 2MB [umbel.toml:9]
   │  orders: max_concurrency 100 · max_queue 256 · connect_timeout 1s · keepalive_expiry 4s · max_head 64KiB ·
   │     max_fields 100 · deadline_header x-envoy-expected-rq-timeout-ms · forwarded true · public_only false
   │ then
   └─ items: GET users /items/{item}  [umbel.toml:25]
         waits for profile and orders
         optional · each orders[*].sku, as a list · when profile.active · null if it fails · \
item_default "${SECRET}" · null_on 404
         timeout 400ms [umbel.toml:2] · max_body 1MB · limit 4 [umbel.toml:29] · max_items 100
         users: max_concurrency 100 · max_queue 5 [umbel.toml:5] · connect_timeout 1s · keepalive_expiry 4s ·
            max_head 64KiB · max_fields 100 · deadline_header x-envoy-expected-rq-timeout-ms · forwarded true ·
            public_only false

Limits without a place are defaults.
"""


def test_the_tree_shows_dependencies_and_each_limit_with_its_place() -> None:
    result = explain("get", "/dashboard/4%202?tag=a&x=1&limit=5")
    assert result.stderr == ""
    assert result.stdout == TREE
    assert result.exit_code == 0


def test_json_has_the_same_facts() -> None:
    document = json.loads(explain("GET", "/dashboard/42", "--json").stdout)
    assert document["path"] == {"user_id": "42"}
    route = document["route"]
    assert (route["path"], route["place"], route["methods"]) == ("/dashboard/<user_id>", "umbel.toml:12", ["GET"])
    assert [(call["name"], call["needs"], call["required"]) for call in route["calls"]] == [
        ("profile", [], True),
        ("orders", [], False),
        ("items", ["profile", "orders"], False),
    ]
    assert route["calls"][0]["limits"][0] == {"key": "timeout", "value": "300ms", "place": "umbel.toml:18"}


def test_mermaid_renders_dependencies_as_arrows_and_optional_ones_dotted() -> None:
    assert explain("GET", "/dashboard/42", "--mermaid").stdout.split("\n") == [
        "flowchart LR",
        '  request(["GET /dashboard/#60;user_id#62;"])',
        '  c0["profile<br/>GET users /users/{user_id}<br/>required"]',
        '  c1["orders<br/>GET orders /orders{?user_id,limit}<br/>optional"]',
        '  c2["items<br/>GET users /items/{item}<br/>optional"]',
        '  answer(["answer: all"])',
        "  request --> c0",
        "  request --> c1",
        "  c0 --> c2",
        "  c1 --> c2",
        "  c0 --> answer",
        "  c1 -.-> answer",
        "  c2 -.-> answer",
        "",
    ]


@pytest.mark.parametrize("form", [[], ["--json"], ["--mermaid"]])
def test_no_output_shows_the_value_of_a_variable(form: list[str]) -> None:
    for target in (["GET", "/dashboard/42"], ["PUT", "/things/1"]):
        result = explain(*target, *form)
        assert result.exit_code == 0
        assert "hunter2" not in result.output


def test_the_candidates_of_first_are_named() -> None:
    shown = explain("DELETE", "/things/7").stdout
    assert "PUT|DELETE /things/<int:id>" in shown
    assert "  combine  first of a, b\n" in shown
    assert "decode text" in shown


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/dashboard/4", "405, the path is known, the method is not; allowed: GET, HEAD, OPTIONS"),
        ("GET", "/things/4", "405, the path is known, the method is not; allowed: DELETE, OPTIONS, PUT"),
        ("GET", "/dashbord/4", "404, no route has this path; near it: GET /dashboard/<user_id>"),
        ("GET", "/things/x", "404, no route has this path; near it: PUT|DELETE /things/<int:id>"),
        ("GET", "/zzzz", "404, no route has this path"),
        ("GET", "/dashboard//4", "308, the client is sent to /dashboard/4"),
        ("GET", "/dashboard/..", "400, The path holds a dot segment."),
        ("GET", "dashboard", "400, The request target must be a path that begins with a slash."),
        ("GET", "/dashboard/%zz", "400, The path holds a percent sign that is not followed by two hex digits."),
    ],
)
def test_a_request_that_no_route_matches_is_explained_with_status_1(method: str, path: str, said: str) -> None:
    result = explain(method, path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{method} {path}: {said}\n")


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("OPTIONS", "/dashboard/4", "204, answered without any call, with Allow: GET, HEAD, OPTIONS"),
        ("GET", "/livez", "200, a probe, answered by the gateway itself"),
    ],
)
def test_a_request_that_the_gateway_answers_itself_is_explained(method: str, path: str, said: str) -> None:
    result = explain(method, path)
    assert (result.exit_code, result.stdout) == (0, f"{method} {path}: {said}\n")


def test_json_explains_a_request_that_no_route_matches() -> None:
    result = explain("GET", "/dashbord/4", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document.pop("browsers")["rules"] is None
    assert document == {
        "route": None,
        "status": 404,
        "reason": "no route has this path",
        "near": ["GET /dashboard/<user_id>"],
    }


def test_head_matches_the_route_of_get() -> None:
    assert explain("HEAD", "/dashboard/4").exit_code == 0


def test_a_configuration_with_mistakes_is_reported_instead(here: Path) -> None:
    write(here, GOOD + "banana = 1\n" + CALL.replace("c =", "d ="))
    result = explain("GET", "/r")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == "umbel.toml:6: routes[0].banana: is not a key of [[routes]]\n"


def test_two_slashes_are_explained_as_a_redirect(here: Path) -> None:
    write(here, GOOD)
    result = explain("GET", "//r?x")
    assert (result.exit_code, result.stderr) == (1, "GET //r?x: 308, the client is sent to /r?x\n")


def test_json_and_mermaid_together_are_a_usage_error() -> None:
    result = explain("GET", "/dashboard/42", "--json", "--mermaid")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json and --mermaid cannot be used together." in result.stderr


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=5", 'The query parameter "tag" is missing.'),
        (
            "tag=a&limit=five",
            'The query parameter "limit" must be a whole number from -9223372036854775808 to 9223372036854775807.',
        ),
        ("tag=%ff", 'The query parameter "tag" is not percent-encoded UTF-8.'),
        ("tag=é#", "The query holds a character that must be percent-encoded."),
        ("", 'The query parameter "tag" is missing.'),
    ],
)
def test_a_query_that_the_route_refuses_is_reported(query: str, said: str) -> None:
    path = f"/dashboard/4?{query}"
    result = explain("GET", path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"GET {path}: 400, {said}\n")
    assert json.loads(explain("GET", path, "--json").stdout)["reason"] == said


def test_json_has_the_values_and_the_ignored_parameters_of_a_query() -> None:
    document = json.loads(explain("GET", "/dashboard/4?tag=a&limit=7&Tag=b&Tag=c", "--json").stdout)
    assert (document["query"], document["ignored"]) == ({"tag": "a", "limit": 7}, ["Tag"])
    assert json.loads(explain("GET", "/dashboard/4?tag=é", "--json").stdout)["query"]["tag"] == "é"


def test_ignored_parameters_beside_a_chart_go_to_stderr() -> None:
    result = explain("GET", "/dashboard/4?tag=a&x=1", "--mermaid")
    assert result.stdout.startswith("flowchart LR")
    assert result.stderr == 'The query parameter "x" is ignored: the route does not know it.\n'


def test_a_parameter_that_a_call_forwards_is_not_ignored(here: Path) -> None:
    write(here, GOOD.replace('path = "/" }', 'path = "/", forward_query = ["page"] }'))
    assert "ignored" not in explain("GET", "/r?page=2").stdout
    assert 'parameter "pag" is ignored' in explain("GET", "/r?pag=2").stdout


def test_settings_of_an_upstream_are_shown_with_their_place(here: Path) -> None:
    keys = 'deadline_header = false\nforwarded = false\npublic_only = true\nkeepalive_expiry = "3s"\n'
    write(here, '[upstreams.u]\nurls = ["http://h"]\n' + keys + ROUTE + CALL)
    route = json.loads(explain("GET", "/r", "--json").stdout)["route"]
    limits = {limit["key"]: (limit["value"], limit["place"]) for limit in route["calls"][0]["upstream_limits"]}
    assert limits["deadline_header"] == ("none", "umbel.toml:3")
    assert limits["forwarded"] == ("false", "umbel.toml:4")
    assert limits["public_only"] == ("true", "umbel.toml:5")
    assert limits["keepalive_expiry"] == ("3s", "umbel.toml:6")


def test_what_is_configured_about_traces_is_shown_without_the_values_of_variables(here: Path) -> None:
    traces = '[traces]\notlp = "http://127.0.0.1:4318/${SECRET}"\nsample = "10%"\nslow = "2s"\nforce = true\n'
    write(here, CONFIG + traces)
    shown = " ".join(explain("PUT", "/things/4").output.split())
    for part in (
        "traces.otlp http://127.0.0.1:4318/${SECRET} [",
        "traces.sample 10% [",
        "traces.slow 2s [",
        "traces.force true [",
    ):
        assert part in shown


def test_constants_in_the_place_of_expressions_are_shown(here: Path) -> None:
    write(here, GOOD + 'calls.d = { upstream = "u", path = "/", params = { page = { value = 1 } } }\n')
    assert "params page is always 1" in CliRunner().invoke(main, ["explain", "GET", "/r"]).stdout


def test_rarely_set_limits_are_shown_only_if_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        GOOD + 'max_steps = 5000\nauth = "none"\n[server]\nhooks = "all"\nmax_uploads = 8\nmin_body_rate = "1KiB/s"\n',
    )
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["explain", "GET", "/r"]).stdout
    for limit in (
        'access   anybody: auth = "none"',
        "max_steps 5000",
        "server.hooks all",
        "server.max_uploads 8",
        "server.min_body_rate 1KiB/s",
    ):
        assert limit in told


STATIC = """
[[routes]]
path = "/about"
respond = { status = 404, text = "none", headers = { x-a = "b" }, delay = "1s" }
[[routes]]
path = "/old/<id>"
query = ["page"]
redirect.to = "/new/{id}{?page}"
[[routes]]
path = "/mock"
[routes.calls.m]
respond = { json = {} }
[routes.calls.n]
upstream = "u"
path = "/n/{m.id}"
respond = { status = 204 }
[routes.answer]
status_from = "n"
"""


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("/about", ["answer   status 404, text, with x-a, after 1s", "no calls"]),
        ("/old/a%20b?page=%2F", ["answer   status 308, to /new/{id}{?page}", "answer   location /new/a%20b?page=%2F"]),
        (
            "/mock",
            [
                "status of n, if it is 201, 202 or 204, with its Location",
                "m: responds status 200, json",
                "n: GET u /n/{m.id}, not sent: responds status 204, no body",
            ],
        ),
    ],
)
def test_an_answer_without_an_upstream_is_shown(asked: str, lines: list[str], tmp_path: Path) -> None:
    write(tmp_path, GOOD + STATIC)
    result = CliRunner().invoke(main, ["explain", "GET", asked, "-c", str(tmp_path / "umbel.toml")])
    assert result.exit_code == 0, result.output
    assert [line for line in lines if line not in result.output] == []
    assert "max_concurrency" not in result.output
    chart = CliRunner().invoke(main, ["explain", "GET", asked, "--mermaid", "-c", str(tmp_path / "umbel.toml")])
    assert chart.output.startswith("flowchart LR")


HOSTS = """
[upstreams.u]
urls = ["http://u"]

[[routes]]
path = "/r"
calls.c = { upstream = "u", path = "/plain" }

[[routes]]
path = "/r"
host = "*.shop.example"
match = "headers.x_beta == 'on' && query.v"
calls.c = { upstream = "u", path = "/beta" }

[[routes]]
path = "/r"
host = "*.shop.example"
calls.c = { upstream = "u", path = "/shop" }

[[routes]]
path = "/m"
match = "headers.x_a"
calls.c = { upstream = "u", path = "/m" }
"""


@pytest.mark.parametrize(
    ("target", "fields", "said"),
    [
        ("/r", [], ["GET /r  [umbel.toml:6]"]),
        ("/r", ["Host: shop.example"], ["GET /r  [umbel.toml:6]"]),
        (
            "/r?v",
            ["Host: A.shop.example:80", "X-Beta: off"],
            [
                "GET /r  [umbel.toml:16]",
                "  because  the host is *.shop.example; no match of the other routes is fulfilled",
            ],
        ),
        (
            "/r?v=1",
            ["host:a.shop.example", "x-beta:on"],
            [
                "GET /r  [umbel.toml:10]",
                "  because  the host is *.shop.example; match headers.x_beta == 'on' && query.v is fulfilled",
            ],
        ),
        ("/m", ["x-a: 1"], ["GET /m  [umbel.toml:21]", "  because  match headers.x_a is fulfilled"]),
    ],
)
def test_the_reason_for_a_route_that_host_or_match_decides_is_shown(
    target: str, fields: list[str], said: list[str], here: Path
) -> None:
    write(here, HOSTS)
    arguments = [argument for field in fields for argument in ("-H", field)]
    lines = explain("GET", target, *arguments).stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("GET /") and "[umbel" in line)
    assert lines[place : place + len(said)] == said
    assert [line for line in lines if line.startswith("  because")] == said[1:]
    assert not any("is ignored" in line for line in lines if '"v"' in line and "x_beta" in str(said))


def test_a_malformed_host_is_explained_as_400_and_an_underscore_is_none(here: Path) -> None:
    write(here, HOSTS)
    assert "because  the host is *.shop.example" in explain("GET", "/r", "-H", "Host: a_b.shop.example").stdout
    result = explain("GET", "/r", "-H", "Host: a.shop.example..")
    assert result.exit_code == 1
    assert "GET /r: 400, The host is not well formed." in result.stderr


def test_a_request_that_fulfils_no_match_is_explained_with_status_1(here: Path) -> None:
    write(here, HOSTS)
    result = explain("GET", "/m")
    assert result.exit_code == 1
    assert "GET /m: 404, routes have this path, but the request fulfils the match of none of them" in result.stderr


CORS = (
    '[cors]\norigins = ["https://app.example"]\n[headers]\nset = { x-key = "${SECRET}" }\n'
    + UPSTREAM
    + ROUTE
    + CALL
    + ROUTE.replace("/r", "/own")
    + CALL
    + "cors = { origins = ['https://own.example'], credentials = true }\n"
)


@pytest.fixture
def with_cors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, CORS)


@pytest.mark.usefixtures("with_cors")
def test_with_an_origin_the_fields_that_a_page_gets_are_shown() -> None:
    result = explain("GET", "/r", "-H", "Origin: https://app.example")
    assert "browsers https://app.example is allowed [umbel.toml:1]\n" in result.stdout
    assert "access-control-allow-origin: https://app.example\n" in result.stdout
    assert "hunter2" not in result.stdout
    result = explain("GET", "/own", "-H", "origin:https://app.example")
    assert "browsers https://app.example is not allowed [umbel.toml:13]: its pages cannot read" in result.stdout
    assert "access-control-" not in result.stdout


@pytest.mark.usefixtures("with_cors")
def test_a_preflight_is_explained_also_where_no_route_matches() -> None:
    asked = ("-H", "Origin: https://own.example", "-H", "Access-Control-Request-Method: PUT")
    result = explain("OPTIONS", "/own", *asked)
    assert (result.exit_code, result.stdout.partition(",")[0]) == (0, "OPTIONS /own: 204")
    assert "access-control-allow-methods: GET, HEAD, OPTIONS\n" in result.stdout
    wanted = ("-H", "Access-Control-Request-Headers: content-type, X-Own")
    assert "does not send the request: PUT, x-own\n" in explain("OPTIONS", "/own", *asked, *wanted).stdout
    document = json.loads(explain("OPTIONS", "/none", "--json", *asked).stdout)
    assert (document["status"], document["browsers"]["origin_allowed"]) == (204, False)


@pytest.mark.parametrize(
    ("method", "target", "field", "status"),
    [
        ("GET", "/r", "Host: other.example", 421),
        ("OPTIONS", "/r", "Host: other.example", 421),
        ("GET", "/r", "Host: a b", 400),
        ("GET", "/r", "x_y: 1", 400),
        ("POST", "/post", "Content-Encoding: snappy", 415),
        ("POST", "/post", "Content-Type: text/plain", 415),
        ("POST", "/post", "Content-Length: 1000001", 413),
        ("GET", "/r", "Content-Length: 16777217", 413),
        ("POST", "/post", 'If-Match: "a"', 412),
        ("GET", "/r", 'If-Match: "a"', None),
        ("GET", "/r", "Content-Length: 16777216", None),
        ("POST", "/post", "Content-Length: 1000000", None),
        ("GET", "/r", "Host: API.example:8000", None),
        ("GET", "/livez", "Host: other.example", None),
        ("POST", "/post", "Content-Encoding: gzip", None),
    ],
)
def test_a_request_that_is_refused_for_its_head_is_explained_with_the_status(
    method: str, target: str, field: str, status: int | None, here: Path
) -> None:
    post = ROUTE.replace("/r", "/post") + 'calls.c = { upstream = "u", path = "/", json = "body" }\n'
    write(here, '[server]\nhosts = ["api.example"]\n' + GOOD + post)
    preflight = ("-H", "Origin: https://a.example", "-H", "Access-Control-Request-Method: PUT")
    result = explain(method, target, "-H", field, *(preflight if method == "OPTIONS" else ()))
    assert result.exit_code == (status is not None)
    assert result.stderr.startswith(f"{method} {target}: {status}, " if status is not None else "")


def test_hsts_is_shown_as_depending_on_https(here: Path) -> None:
    write(here, GOOD + '[headers]\npreset = "web"\n[cors]\norigins = ["*"]\n')
    assert "strict-transport-security: max-age=31536000, if the client uses https\n" in explain("GET", "/r").stdout


COMPRESSION = {
    (): [],
    ("-H", "Accept-Encoding: br;q=0.5, gzip"): ["compressed by gzip for this request"],
    ("-H", "accept-encoding: gzip, identity;q=0"): [
        "compressed by gzip for this request, whatever its size, because the client refuses an uncoded answer"
    ],
    ("-H", "Accept-Encoding: deflate"): [
        "not compressed for this request: Accept-Encoding names none of the codings, or prefers identity"
    ],
    ("-H", "Accept-Encoding: gzip", "-H", "Via: 1.1 cdn"): [
        "not compressed for this request, because it has Via and proxied is false"
    ],
}


@pytest.mark.parametrize("asked", COMPRESSION, ids=map(str, COMPRESSION))
def test_the_coding_of_the_answer_to_a_request_is_shown(asked: tuple[str, ...], here: Path) -> None:
    write(here, GOOD + "[compress]\nalgorithms = ['gzip', 'br']\n")
    rules = json.loads(explain("GET", "/r", "--json", *asked).stdout)["route"]["rules"]
    expected = ["compressed by gzip, br from 1KiB on, as the client accepts", *COMPRESSION[asked]]
    assert [rule for rule in rules if "compressed" in rule] == expected


def test_a_route_without_compression_is_shown_as_such(here: Path) -> None:
    for key in ("compress = false", "stream = true"):
        write(here, GOOD.replace("[[routes]]\n", f"[[routes]]\n{key}\n") + "[compress]\n")
        assert "answer   never compressed" in explain("GET", "/r").stdout
    write(here, GOOD)
    assert "compressed" not in explain("GET", "/r").stdout


VARYING = {
    "GET /r": "Accept, X-Tenant, Origin, Accept-Encoding",
    "GET /m": "Accept, X-Beta, Origin, Accept-Encoding",
    "GET /image": "Origin",
    "GET /moved": "Accept-Language, Origin",
    "GET /events": "Accept, Origin",
}


def test_vary_names_what_templates_match_cors_and_compression_read(here: Path) -> None:
    call = 'calls.c = { upstream = "u", path = "/", headers = { x-t = "{headers.x_tenant}" } }\n'
    matched = '[[routes]]\npath = "/m"\nmatch = "headers.x_beta"\n' + CALL + '[[routes]]\npath = "/m"\n' + CALL
    image = 'respond = { text = "x", headers = { content-type = "image/png" } }\n'
    text = f"[compress]\n[cors]\norigins = ['*']\n{UPSTREAM}{ROUTE}{call}{matched}"
    text += f'[[routes]]\npath = "/image"\n{image}[[routes]]\npath = "/events"\nstream = true\n{CALL}'
    text += '[[routes]]\npath = "/moved"\nredirect.to = "/{headers.accept_language}"\n'
    write(here, text)
    for request, vary in VARYING.items():
        document = json.loads(explain(*request.split(), "-H", "Accept-Language: de", "--json").stdout)
        assert ["vary", vary] in document["browsers"]["fields"], request
        assert f"varies with {vary.lower()}" in document["route"]["rules"], request
    asked = ("-H", "Origin: https://a.example", "-H", "Access-Control-Request-Method: GET")
    fields = dict(json.loads(explain("OPTIONS", "/r", "--json", *asked).stdout)["browsers"]["fields"])
    assert fields["vary"].startswith("Origin")


def test_the_statuses_that_a_call_passes_on_are_written_as_ranges(here: Path) -> None:
    write(here, UPSTREAM + ROUTE + CALL.replace(" }", ', redirects = "pass", ok = [200, 202, 203, 204] }'))
    said = explain("GET", "/r").stdout
    assert "passes on status 300-303, 305-400, 403, 404, 409, 410, 412, 422, 429" in " ".join(said.split())
    assert "ok 200, 202-204" in said


def test_the_cors_rules_of_a_path_with_a_kept_slash_are_those_of_its_route(here: Path) -> None:
    keys = "encoded_slash = 'keep'\ncors = { origins = ['https://own.example'], headers = ['x-own'] }\n"
    write(
        here, "[cors]\norigins = ['https://app.example']\n" + UPSTREAM + ROUTE.replace("/r", "/keep/<n>") + keys + CALL
    )
    asked = ("-H", "Origin: https://own.example")
    assert "browsers https://own.example is allowed" in explain("GET", "/keep/a%2Fb", *asked).stdout
    preflight = explain("OPTIONS", "/keep/a%2Fb", *asked, "-H", "Access-Control-Request-Method: GET").stdout
    assert "access-control-allow-headers: x-own\n" in preflight


def test_a_kept_slash_is_explained_as_a_part_of_the_value_and_others_are_refused(here: Path) -> None:
    routes = '[[routes]]\npath = "/keep/<n>"\nencoded_slash = "keep"\ncalls.c = { upstream = "u", path = "/{n}" }\n'
    routes += '[[routes]]\npath = "/refuse/<n>"\ncalls.c = { upstream = "u", path = "/{n}" }\n'
    write(here, '[upstreams.u]\nurls = ["http://u"]\n' + routes)
    assert explain("GET", "/keep/a%2Fb").stdout.startswith('GET /keep/a%2Fb: n = "a/b"\n')
    for path in ("/refuse/a%2Fb", "/keep/..%2Fb"):
        result = explain("GET", path)
        assert (result.exit_code, result.stderr[: len(path) + 9]) == (1, f"GET {path}: 400")


DRY_RUNS = (
    GOOD
    + """
[[routes]]
path = "/slash/<n>/"
encoded_slash = "keep"
respond = { text = "x" }
[[routes]]
path = "/closed/<n>/"
respond = { text = "x" }
[[routes]]
path = "/by-header"
redirect.to = "/h/{headers.x_name}"
"""
)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("OPTIONS", "*"), "OPTIONS *: 204, answered for the server as a whole, without any call"),
        (("OPTIONS", "*?a"), "OPTIONS *?a: 400, "),
        (("GET", "/slash/a%2Fb?x=%00"), "GET /slash/a%2Fb?x=%00: 308, the client is sent to /slash/a%2Fb/?x=%00"),
        (("GET", "//slash/a?x=1"), "GET //slash/a?x=1: 308, the client is sent to /slash/a?x=1"),
        (("GET", "/closed/a%2Fb"), "GET /closed/a%2Fb: 400, The path holds an encoded slash, backslash or NUL."),
        (("GET", "/none/a%2Fb"), "GET /none/a%2Fb: 400, The path holds an encoded slash, backslash or NUL."),
        (("GET", "/by-header"), "GET /by-header: 400, {headers.x_name} has no value"),
        (("GET", "/by-header", "-H", "x-name:.."), "400, {headers.x_name} is empty or a dot segment"),
        (("GET", "/by-header", "-H", "X-Name: a/b"), "answer   location /h/a%2Fb"),
        (("GET", "/slash/a/", "-H", "If-None-Match:*"), "answer   status 304, since If-None-Match names the ETag"),
        (("PUT", "/slash/a/", "-H", "If-None-Match:*"), "405"),
        (("GET", "/slash/a/", "-H", 'If-None-Match:"x"'), "answer   status 200, text"),
    ],
)
def test_a_dry_run_says_what_the_server_answers(asked: tuple[str, ...], said: str, here: Path) -> None:
    write(here, DRY_RUNS)
    result = explain(*asked)
    assert said in result.output


SPLIT = """
[upstreams.v1]
urls = ["http://127.0.0.1:1"]
[upstreams.v2]
urls = ["http://127.0.0.1:2"]
timeout = "70ms"
[upstreams.v3]
urls = ["http://127.0.0.1:3"]
timeout = "80ms"
[[routes]]
path = "/r/<id>"
[routes.calls.x]
upstream = "v1"
path = "/x"
split = { v2 = "10%", v3 = "20.5%" }
split_key = "KEY"
mirror = { upstream = "v3", share = "5%" }
"""
SHARES = "split v2 10%, v3 20.5%, v1 69.5%"


@pytest.mark.parametrize(
    ("key", "asked", "said"),
    [
        ("client.ip", (), "by client.ip: give the address of the client with --client to see which"),
        ("client.ip", ("--client", "3"), "by client.ip: this request goes to V"),
        ("headers.x_user", ("-H", "X-User: 3"), "by headers.x_user: this request goes to V"),
        ("cookies.sid", ("-H", "Cookie: sid=3"), "by cookies.sid: this request goes to V"),
        ("path.id", (), "by path.id: this request goes to V"),
    ],
)
def test_a_split_shows_its_shares_and_the_choice_for_the_request(
    key: str, asked: tuple[str, ...], said: str, here: Path
) -> None:
    write(here, SPLIT.replace("KEY", key))
    result = explain("GET", "/r/3", *asked)
    chosen = Split("v1", {"v2": 0.1, "v3": 0.205}).choose("3", lambda: 1.0)
    assert f"{SHARES}, {said.replace(' to V', f' to {chosen}')}" in result.stdout
    assert result.exit_code == 0


def test_the_limits_of_a_split_call_are_those_of_the_chosen_upstream(here: Path) -> None:
    write(here, SPLIT.replace("KEY", "path.id"))
    split = Split("v1", {"v2": 0.1, "v3": 0.205})
    by_upstream = {split.choose(str(number), lambda: 1.0): number for number in range(100)}
    for upstream, timeout in {"v1": "timeout what the", "v2": "timeout 70ms", "v3": "timeout 80ms"}.items():
        shown = explain("GET", f"/r/{by_upstream[upstream]}").stdout
        assert f"├─ x: GET {upstream} /x" in shown.replace("└─", "├─")
        assert timeout in shown
        assert f"{upstream}: max_concurrency" in shown


def test_a_split_without_a_key_and_a_mirror_are_shown_as_such(here: Path) -> None:
    write(here, SPLIT.replace('split_key = "KEY"\n', ""))
    shown = explain("GET", "/r/3").stdout
    assert f"{SHARES}, at random" in shown
    assert "copies 5% of its requests to v3 after the answer, for at most 80ms each" in shown
