"""Messages about values of a wrong type, out of bounds, or otherwise invalid.

Each entry of the table has the text of a file and the exact messages about its mistakes.
"""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, mistakes

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "words of hooks and auth": (
        '[server]\nhooks = "Auto"\n[defaults.route]\nauth = "no ne"\n',
        [
            'umbel.toml:2: server.hooks: needs "auto", "all" or "python", not "Auto"; did you mean "auto"?',
            'umbel.toml:4: defaults.route.auth: "no ne" is not a name; names are letters, digits, _ and -, first a letter or _',
        ],
    ),
    "an admin side without a token": (
        '[admin]\nbind = "127.0.0.1:9600"\n',
        [
            "umbel.toml:2: admin.bind: bind needs a token beside it, because any process could connect; the Unix socket needs none"
        ],
    ),
    "a token without an address": (
        '[admin]\ntoken = "0123456789abcdef"\n',
        ["umbel.toml:2: admin.token: token has an effect only with bind"],
    ),
    "one address for both sides of [admin]": (
        '[admin]\nbind = "127.0.0.1:9600"\ntoken = "0123456789abcdef"\nmetrics = "127.0.0.1:9600"\n',
        [
            "umbel.toml:4: admin.metrics: metrics needs another address than bind, where /metrics is served with the token"
        ],
    ),
    "addresses and a token of the admin side": (
        '[admin]\nbind = "9600"\ntoken = "s3cr3t s3cr3t s3cr3t"\nmetrics = "0.0.0.0:70000"\ncontrol = "x"\n',
        [
            'umbel.toml:2: admin.bind: "9600" is not an address; write a host and a port, such as "127.0.0.1:9600"',
            "umbel.toml:3: admin.token: needs at least 16 characters, of letters, digits and ._~+/=-",
            'umbel.toml:4: admin.metrics: "0.0.0.0:70000" is not an address; write a host and a port, such as "127.0.0.1:9600"',
            "umbel.toml:5: admin.control: is not a key of [admin]",
        ],
    ),
    "wrong types": (
        "[upstreams.u]\n"
        'urls = "http://h"\n'
        "timeout = 5\n"
        'max_queue = "5"\n'
        "max_concurrency = 1.5\n"
        'headers = ["a"]\n'
        "params.p = 5\n"
        'public_only = "yes"\n'
        'tls = "x"\n'
        "deadline_header = true\n"
        "forwarded = 1\n"
        "max_head = true\n"
        "keepalive_expiry = 1979-05-27\n",
        [
            "umbel.toml:2: upstreams.u.urls: needs a list, not a text; put it in square brackets",
            'umbel.toml:3: upstreams.u.timeout: 5 is not a duration; write a number and a unit, such as "250ms" or "2s"',
            "umbel.toml:4: upstreams.u.max_queue: needs a whole number, not a text",
            'umbel.toml:5: upstreams.u.max_concurrency: needs a whole number of at least 1, or "auto"',
            "umbel.toml:6: upstreams.u.headers: needs a table, not a list",
            'umbel.toml:7: upstreams.u.params.p: needs a text, not a whole number; write "`5`" (a JMESPath literal) or { value = 5 }',
            "umbel.toml:8: upstreams.u.public_only: needs true or false, not a text",
            "umbel.toml:9: upstreams.u.tls: needs a table, not a text",
            "umbel.toml:10: upstreams.u.deadline_header: needs a text or false, not true",
            "umbel.toml:11: upstreams.u.forwarded: needs true or false, not a whole number",
            'umbel.toml:12: upstreams.u.max_head: this is not a size; write a number and a unit, such as "64KiB" or "10MB"',
            'umbel.toml:13: upstreams.u.keepalive_expiry: this is not a duration; write a number and a unit, such as "250ms" or "2s"',
        ],
    ),
    "sections of a wrong type": (
        'upstreams = 5\nroutes = 5\nserver = 5\nlogs = "x"\ndefaults = 1\ninclude = "x"\n',
        [
            "umbel.toml:1: upstreams: needs a table for each upstream: [upstreams.NAME]",
            "umbel.toml:2: routes: needs a list of tables: write [[routes]], with two brackets",
            "umbel.toml:3: server: needs a table, not a whole number",
            "umbel.toml:4: logs: needs a table, not a text",
            "umbel.toml:5: defaults: needs the tables [defaults.upstream] and [defaults.route]",
            "umbel.toml:6: include: needs a list, not a text; put it in square brackets",
        ],
    ),
    "[routes] for [[routes]]": (
        '[routes]\npath = "/"\n',
        ["umbel.toml:1: routes: needs a list of tables: write [[routes]], with two brackets"],
    ),
    "[[upstreams.u]] for [upstreams.u]": (
        '[[upstreams.u]]\nurls = ["http://h"]\n',
        ["umbel.toml:1: upstreams.u: needs a table, not a list; its header has single brackets"],
    ),
    "[[server]] for [server]": (
        '[[server]]\nmax_body = "1MB"\n',
        ["umbel.toml:1: server: needs a table, not a list; its header has single brackets"],
    ),
    "a route that is no table": ("routes = [5]\n", ["umbel.toml:1: routes[0]: needs a table, not a whole number"]),
    "durations and sizes": (
        UPSTREAM + 'timeout = "5"\n'
        'connect_timeout = "0s"\n'
        'keepalive_expiry = "-1s"\n'
        'max_body = "0B"\n'
        'max_head = "5 MB"\n',
        [
            'umbel.toml:3: upstreams.u.timeout: "5" is not a duration; write a number and a unit, such as "250ms" or "2s"',
            "umbel.toml:4: upstreams.u.connect_timeout: a duration must be above zero",
            'umbel.toml:5: upstreams.u.keepalive_expiry: "-1s" is not a duration; write a number and a unit, such as "250ms" or "2s"',
            "umbel.toml:6: upstreams.u.max_body: a size must be above zero",
            'umbel.toml:7: upstreams.u.max_head: "5 MB" is not a size; write a number and a unit, such as "64KiB" or "10MB"',
        ],
    ),
    "numbers out of bounds": (
        UPSTREAM + "max_concurrency = 0\n"
        "max_queue = -1\n" + ROUTE + CALL + "quorum = 0\n"
        "[routes.answer]\n"
        "status = 500\n",
        [
            'umbel.toml:3: upstreams.u.max_concurrency: needs a whole number of at least 1, or "auto"',
            "umbel.toml:4: upstreams.u.max_queue: must be at least 0",
            "umbel.toml:8: routes[0].quorum: must be at least 1",
            "umbel.toml:10: routes[0].answer.status: must be at most 299",
        ],
    ),
    "statuses out of bounds": (
        UPSTREAM
        + ROUTE
        + 'calls.c = { upstream = "u", path = "/", ok = [99], null_on = [600], pass_status = [200, 304] }\n',
        [
            "umbel.toml:5: routes[0].calls.c.null_on[0]: must be at most 599",
            "umbel.toml:5: routes[0].calls.c.ok[0]: must be at least 200",
            "umbel.toml:5: routes[0].calls.c.pass_status[0]: must be at least 300",
            "umbel.toml:5: routes[0].calls.c.pass_status[1]: 304 answers a condition; forward if-none-match or "
            "if-modified-since instead",
        ],
    ),
    "a number of more than 64 bits": (
        UPSTREAM + "max_queue = 99999999999999999999\n",
        ["umbel.toml:3: upstreams.u.max_queue: a whole number may have at most 64 bits"],
    ),
    "words that are not allowed": (
        UPSTREAM + ROUTE + 'combine = "frist"\nbody = "xml"\nmethods = ["get"]\nexpose = 5\n' + CALL,
        [
            'umbel.toml:5: routes[0].combine: needs "all", "first" or "quorum", not "frist"; did you mean "first"?',
            'umbel.toml:6: routes[0].body: needs "json", "form" or "bytes", not "xml"',
            'umbel.toml:7: routes[0].methods[0]: needs "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" or "OPTIONS", not "get"; did you mean "GET"?',
            'umbel.toml:8: routes[0].expose: needs "full", "completed" or "none", not a whole number',
        ],
    ),
    "invalid URLs": (
        "[upstreams.u]\n"
        'urls = ["ftp://h", "h", "http://", "http://a:99999", "http://[::1", "http://a b", "http://a?x=1", "http://a#f", "http://u:secret@a", "user:secret@a", "unix:x", "unix:", "http://a:0", "http://ä", "http://h/{x}", "HTTP://ok/", "http://h\\n"]\n',
        [
            "umbel.toml:2: upstreams.u.urls[0]: this is not an http://, https:// or unix: URL",
            "umbel.toml:2: upstreams.u.urls[1]: this is not an http://, https:// or unix: URL",
            "umbel.toml:2: upstreams.u.urls[2]: this is not an http://, https:// or unix: URL",
            "umbel.toml:2: upstreams.u.urls[3]: this is not a URL: its host or its port is malformed",
            "umbel.toml:2: upstreams.u.urls[4]: this is not a URL: its host or its port is malformed",
            "umbel.toml:2: upstreams.u.urls[5]: this is not a URL: it may hold only letters, digits and -._~:/[]!$&'()*+,;=%",
            "umbel.toml:2: upstreams.u.urls[6]: this must be a base URL: a host with an optional port and path, without query and fragment",
            "umbel.toml:2: upstreams.u.urls[7]: this must be a base URL: a host with an optional port and path, without query and fragment",
            "umbel.toml:2: upstreams.u.urls[8]: a URL must not hold credentials; send them in a header such as authorization",
            "umbel.toml:2: upstreams.u.urls[9]: this is not an http://, https:// or unix: URL",
            'umbel.toml:2: upstreams.u.urls[10]: a unix: URL needs an absolute path, such as "unix:/run/users.sock"',
            'umbel.toml:2: upstreams.u.urls[11]: a unix: URL needs an absolute path, such as "unix:/run/users.sock"',
            "umbel.toml:2: upstreams.u.urls[12]: the port of a URL must be at least 1",
            "umbel.toml:2: upstreams.u.urls[13]: this is not a URL: it may hold only letters, digits and -._~:/[]!$&'()*+,;=%",
            "umbel.toml:2: upstreams.u.urls[14]: this is not a URL: it may hold only letters, digits and -._~:/[]!$&'()*+,;=%",
            "umbel.toml:2: upstreams.u.urls[16]: this is not a URL: it may hold only letters, digits and -._~:/[]!$&'()*+,;=%",
        ],
    ),
    "no URL": ("[upstreams.u]\nurls = []\n", ["umbel.toml:2: upstreams.u.urls: must not be empty"]),
    "no call": (UPSTREAM + ROUTE + "calls = {}\n", ["umbel.toml:5: routes[0].calls: must not be empty"]),
    "invalid header fields": (
        UPSTREAM + 'headers = { "a b" = "x", Host = "x", a = "x\\r\\ny", "Content-Length" = "5" }\n',
        [
            'umbel.toml:3: upstreams.u.headers."a b": "a b" is not a header name',
            'umbel.toml:3: upstreams.u.headers.Content-Length: "Content-Length" belongs to one connection and is written by Umbel; remove it',
            'umbel.toml:3: upstreams.u.headers.Host: "Host" belongs to one connection and is written by Umbel; remove it, or write the key'
            " host of the upstream",
            "umbel.toml:3: upstreams.u.headers.a: the value of a header must not hold a line break or another control"
            " character except tab; remove it",
        ],
    ),
    "a header twice in different case": (
        UPSTREAM + 'headers = { X-A = "1", x-a = "2" }\n',
        ['umbel.toml:3: upstreams.u.headers: "x-a" and "X-A" are the same header; remove one'],
    ),
    "no method": (UPSTREAM + ROUTE + "methods = []\n" + CALL, ["umbel.toml:5: routes[0].methods: must not be empty"]),
    "invalid networks": (
        '[server]\ntrusted_proxies = ["10.0.0.0/33", "x", "10.0.0.1/8"]\n',
        [
            'umbel.toml:2: server.trusted_proxies[0]: "10.0.0.0/33" is not an address, a network such as "10.0.0.0/8", '
            'or "unix"',
            'umbel.toml:2: server.trusted_proxies[1]: "x" is not an address, a network such as "10.0.0.0/8", or "unix"',
            'umbel.toml:2: server.trusted_proxies[2]: "10.0.0.1/8" is not an address, a network such as "10.0.0.0/8", '
            'or "unix"',
        ],
    ),
    "a log outside of its directory": (
        '[logs]\nfile = "x"\naccess.file = "../x"\n',
        [
            "umbel.toml:2: logs.file: is not a key of [logs]; it belongs in [logs.access] or [logs.calls] or [logs.app]",
            'umbel.toml:3: logs.access.file: "../x" is not a file name; write a name without a directory',
        ],
    ),
    "a date as a default": (
        UPSTREAM
        + ROUTE
        + 'calls.c = { upstream = "u", path = "/", optional = true, default = { a = [1979-05-27] } }\n',
        ["umbel.toml:5: routes[0].calls.c.default: JSON has no dates and times; write the value in quotes"],
    ),
    "inf as a default": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", optional = true, default = inf }\n',
        ["umbel.toml:5: routes[0].calls.c.default: JSON has neither inf nor nan"],
    ),
    "defaults of query parameters": (
        UPSTREAM
        + ROUTE
        + CALL
        + 'query = { a = { type = "int", default = "x" }, b = { type = "bool", default = 1 }, c = { type = "float", default = true }, d = { default = 5 }, e = { default = "x", required = true}, f = { type = "float", default = inf }, g = { type = "float", default = 1}, h = { type = "list[int]", default = [1, true] }, i = { type = "list[int]", default = 1 }, j = { type = "list[float]", split = ",", default = [1, 2.5] }, k = { split = "," }, l = { default = ["x"] }, m = { type = "list[str]", split = ", ", default = [["x"]] } }\n',
        [
            'umbel.toml:6: routes[0].query.a.default: the default of a parameter of type "int" must have that type; it is a text',
            'umbel.toml:6: routes[0].query.b.default: the default of a parameter of type "bool" must have that type',
            'umbel.toml:6: routes[0].query.c.default: the default of a parameter of type "float" must have that type',
            'umbel.toml:6: routes[0].query.d.default: the default of a parameter of type "str" must have that type',
            "umbel.toml:6: routes[0].query.e.default: a required parameter cannot have a default",
            "umbel.toml:6: routes[0].query.f.default: JSON has neither inf nor nan",
            'umbel.toml:6: routes[0].query.h.default: the default of a parameter of type "list[int]" must have that type',
            'umbel.toml:6: routes[0].query.i.default: the default of a parameter of type "list[int]" must have that type',
            'umbel.toml:6: routes[0].query.k.split: split has an effect only with a list type, such as "list[str]"',
            'umbel.toml:6: routes[0].query.l.default: the default of a parameter of type "str" must have that type',
            "umbel.toml:6: routes[0].query.m.default[0]: needs a text or a whole number or a number or true or false, not a list",
            'umbel.toml:6: routes[0].query.m.split: needs one character, such as ","',
        ],
    ),
    "types in query parameters": (
        UPSTREAM + ROUTE + CALL + "query = { a = 5, b = { type = 5, default = [] } }\n",
        [
            "umbel.toml:6: routes[0].query.a: needs a table, not a whole number",
            'umbel.toml:6: routes[0].query.b.type: needs "str", "int", "float", "bool", "list[str]", "list[int]", "list[float]" or "list[bool]", not a whole number',
        ],
    ),
    "a query that is a number": (
        UPSTREAM + ROUTE + CALL + "query = 5\n",
        ["umbel.toml:6: routes[0].query: needs a table or a list, not a whole number"],
    ),
    "a query list with a number": (
        UPSTREAM + ROUTE + CALL + 'query = ["a", 5]\n',
        ["umbel.toml:6: routes[0].query[1]: needs a text, not a whole number"],
    ),
    "bodies of wrong types": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", json = 5, form = { a = 5 } }\n',
        [
            'umbel.toml:5: routes[0].calls.c.form.a: needs a text, not a whole number; write "`5`" (a JMESPath literal) or { value = 5 }',
            "umbel.toml:5: routes[0].calls.c.json: needs a text or a table, not a whole number",
        ],
    ),
    "a path without a slash": (
        UPSTREAM + '[[routes]]\npath = "r"\n' + CALL,
        ['umbel.toml:4: routes[0].path: a path must begin with "/", not "r"'],
    ),
    "compression": (
        '[compress]\ntypes = ["text/*", "json", "a/*b"]\nmin = 1024\nalgorithms = ["gzip", "deflate"]\nproxied = "no"\n'
        '[defaults.route]\ncompress = "off"\n',
        [
            'umbel.toml:2: compress.types[1]: "json" is not a media type; write one such as "text/html", or "text/*", or "application/*+json"',
            'umbel.toml:2: compress.types[2]: "a/*b" is not a media type; write one such as "text/html", or "text/*", or "application/*+json"',
            'umbel.toml:3: compress.min: 1024 is not a size; write a number and a unit, such as "64KiB" or "10MB"',
            'umbel.toml:4: compress.algorithms[1]: needs "zstd", "br" or "gzip", not "deflate"',
            "umbel.toml:5: compress.proxied: needs true or false, not a text",
            "umbel.toml:7: defaults.route.compress: needs true or false, not a text",
        ],
    ),
    "invalid policies": (
        '[upstreams.a]\nurls = [{ url = "http://a", weigth = 3 }, "http://b"]\nretry_budget = "200%"\n'
        'hedge = { after = "p100" }\nbreaker = { failure_ratio = 0.5 }\nejection = "no"\n'
        'health = { path = "healthz" }\nbalance = "p3c"\nretry = { on = ["bogus", 200] }\n'
        '[upstreams.b]\nurls = ["dns+http://127.0.0.1:80", { url = "http://u:p@x" }]\n',
        [
            'umbel.toml:2: upstreams.a.urls[0].weigth: is not a key of [[upstreams.a.urls]]; did you mean "weight"?',
            "umbel.toml:3: upstreams.a.retry_budget: a ratio must be above 0% and at most 100%",
            'umbel.toml:4: upstreams.a.hedge.after: needs a duration or a percentile, such as "200ms" or "p95"',
            'umbel.toml:5: upstreams.a.breaker.failure_ratio: 0.5 is not a ratio; write a number and a percent sign, such as "20%"',
            "umbel.toml:6: upstreams.a.ejection: needs true or false or a table, not a text",
            'umbel.toml:7: upstreams.a.health.path: needs a "/" followed by visible ASCII without "#", such as'
            ' "/healthz"; percent-encode other characters',
            'umbel.toml:8: upstreams.a.balance: needs "p2c", "round_robin" or "weighted", not "p3c"',
            "umbel.toml:9: upstreams.a.retry.on[0]: needs one of the words connect, dns, reset, status, or a number from 400 to 599",
            "umbel.toml:9: upstreams.a.retry.on[1]: needs one of the words connect, dns, reset, status, or a number from 400 to 599",
            "umbel.toml:11: upstreams.b.urls[0]: dns+ needs a host name; write a URL with an IP address without dns+",
            "umbel.toml:11: upstreams.b.urls[1].url: a URL must not hold credentials; send them in a header such as authorization",
        ],
    ),
    "invalid user agents": (
        "".join(
            f'[upstreams.u{number}]\nurls = ["http://a"]\nuser_agent = {value}\n'
            for number, value in enumerate(('""', '"a\\nb"', '"\u00e9"', '" a"', "false"))
        ),
        [
            *(
                f'umbel.toml:{line}: upstreams.u{number}.user_agent: needs printable ASCII, such as "my-gateway/1.0 (+https://example.com)", or "off"'
                for number, line in enumerate((3, 6, 9, 12))
            ),
            "umbel.toml:15: upstreams.u4.user_agent: needs a text, not false",
        ],
    ),
    "replicas given twice, and weights without effect": (
        '[upstreams.u]\nurls = [{ url = "http://a", weight = 3 }, "http://a"]\n',
        [
            "umbel.toml:2: upstreams.u.urls: a replica is given twice; write it once with a weight",
            'umbel.toml:2: upstreams.u.urls: weights have an effect only with balance = "weighted"',
        ],
    ),
    "paths of the gateway's probes": (
        UPSTREAM
        + "".join(f"[[routes]]\npath = '{path}'\n{CALL}" for path in ("/livez", "/readyz", "/livez/x", "/<x>")),
        [
            f'umbel.toml:{line}: routes[{index}].path: "{path}" is a probe, which the gateway answers; write another path'
            for index, (line, path) in enumerate(((4, "/livez"), (7, "/readyz")))
        ],
    ),
    "paths that are always refused": (
        UPSTREAM
        + "".join(f"[[routes]]\npath = '{path}'\n{CALL}" for path in ("/x?y=1", "/x#y", "/../x", "/%2f", "/a//b")),
        [
            'umbel.toml:4: routes[0].path: a request with "?" in its path is always refused; remove it',
            'umbel.toml:7: routes[1].path: a request with "#" in its path is always refused; remove it',
            "umbel.toml:10: routes[2].path: write the path without //, /./ and /../; a request with one of them is redirected or refused",
            'umbel.toml:13: routes[3].path: a request with "%2f" in its path is always refused; remove it',
            "umbel.toml:16: routes[4].path: write the path without //, /./ and /../; a request with one of them is redirected or refused",
        ],
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(kind: str, tmp_path: Path) -> None:
    text, lines = MISTAKES[kind]
    assert mistakes(tmp_path, text) == lines
