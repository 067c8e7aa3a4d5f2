"""Messages about broken constraints between keys, and about mistakes in routes.

Each entry of the table has the text of a file and the exact messages about its mistakes.
"""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, mistakes

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "several bodies, and a body of a GET": (
        UPSTREAM
        + ROUTE
        + 'calls.c = { upstream = "u", path = "/", json = "body", form = "body" , forward_body = true, method = "GET" }\n',
        [
            "umbel.toml:5: routes[0].calls.c.form: json, form and forward_body exclude each other: a call has one body",
            "umbel.toml:5: routes[0].calls.c.forward_body: json, form and forward_body exclude each other: a call has one body",
            "umbel.toml:5: routes[0].calls.c.method: a GET call has no body; write another method",
        ],
    ),
    "keys of an each without an each": (
        UPSTREAM
        + ROUTE
        + 'calls.c = { upstream = "u", path = "/", limit = 2, max_items = 3, as = "map", item_default = 1 }\n',
        [
            "umbel.toml:5: routes[0].calls.c.as: as is about the items of an each, but this call has no each",
            "umbel.toml:5: routes[0].calls.c.item_default: item_default is about the items of an each, but this call has no each",
            "umbel.toml:5: routes[0].calls.c.limit: limit is about the items of an each, but this call has no each",
            "umbel.toml:5: routes[0].calls.c.max_items: max_items is about the items of an each, but this call has no each",
        ],
    ),
    "a default without effect": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", default = 1, default_null = true }\n',
        [
            "umbel.toml:5: routes[0].calls.c.default: a default has an effect only in a call with optional = true or with when",
            "umbel.toml:5: routes[0].calls.c.default_null: default and default_null exclude each other",
        ],
    ),
    "an item_default of a required call": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", each = "query.a", item_default = 1 }\n'
        'query = ["a"]\n',
        [
            "umbel.toml:5: routes[0].calls.c.item_default: item_default has an effect only in a call with optional = true: a required each fails if an item fails"
        ],
    ),
    "a status in ok and in null_on": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", ok = [200, 404], null_on = [404] }\n',
        ["umbel.toml:5: routes[0].calls.c.null_on: 404 is in ok and in null_on; remove it from one"],
    ),
    "combine = quorum without quorum": (
        UPSTREAM + ROUTE + CALL + 'combine = "quorum"\n',
        ['umbel.toml:6: routes[0].combine: combine = "quorum" needs quorum, a number of successes'],
    ),
    "quorum without combine = quorum": (
        UPSTREAM + ROUTE + CALL + "quorum = 1\n",
        ['umbel.toml:6: routes[0].quorum: quorum has an effect only with combine = "quorum"'],
    ),
    "broken constraints beside other mistakes in the same table": (
        UPSTREAM + ROUTE + "banana = 1\n"
        "quorum = 2\n"
        'calls.c = { upstream = "u", path = 5, limit = 2, ok = [200], null_on = [200] }\n',
        [
            "umbel.toml:5: routes[0].banana: is not a key of [[routes]]",
            "umbel.toml:7: routes[0].calls.c.limit: limit is about the items of an each, but this call has no each",
            "umbel.toml:7: routes[0].calls.c.null_on: 200 is in ok and in null_on; remove it from one",
            "umbel.toml:7: routes[0].calls.c.path: needs a text, not a whole number",
        ],
    ),
    "a constraint about a misspelt key is not reported": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", eech = "body", limit = 2 }\n',
        ['umbel.toml:5: routes[0].calls.c.eech: is not a key of [routes.calls.c]; did you mean "each"?'],
    ),
    "a client certificate without a key": (
        UPSTREAM + 'tls.cert = "c.pem"\n',
        ["umbel.toml:3: upstreams.u.tls.cert: cert needs key beside it: write both or neither"],
    ),
    "a mistake in an upstream is not reported for its route": (
        "[upstreams.u]\nurls = []\n" + ROUTE + CALL,
        ["umbel.toml:2: upstreams.u.urls: must not be empty"],
    ),
    "an unknown upstream": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "w", path = "/" }\n',
        ['umbel.toml:5: routes[0].calls.c.upstream: there is no upstream "w"; add [upstreams.w]'],
    ),
    "an invalid template": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/{a b}" }\n',
        ['umbel.toml:5: routes[0].calls.c.path: {a b}: "a b" is not a name; a name has letters, digits, "_" and "."'],
    ),
    "an unknown name": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/{nope}" }\n',
        ['umbel.toml:5: routes[0].calls.c.path: "nope" is an unknown name'],
    ),
    "an invalid expression": (
        UPSTREAM + ROUTE + CALL + 'answer.shape = "{a: "\n',
        [
            "umbel.toml:6: routes[0].answer.shape: not a JMESPath expression: a name, a value or a closing bracket is missing at its end"
        ],
    ),
    "calls that wait for each other": (
        UPSTREAM + ROUTE + 'calls.a = { upstream = "u", path = "/{b.x}" }\n'
        'calls.b = { upstream = "u", path = "/{a.x}" }\n',
        ["umbel.toml:5: routes[0].calls.a: these calls wait for each other: a → b → a"],
    ),
    "paths that werkzeug refuses": (
        UPSTREAM + '[[routes]]\npath = "/<int:a"\n' + CALL + '[[routes]]\npath = "/<foo:a>"\n' + CALL,
        [
            "umbel.toml:4: routes[0].path: \"/<int:a\" is not a valid route: malformed url rule: '/<int:a'",
            "umbel.toml:7: routes[1].path: \"/<foo:a>\" is not a valid route: the converter 'foo' does not exist",
        ],
    ),
    "a route given twice": (
        UPSTREAM + ROUTE + CALL + ROUTE + CALL,
        ["umbel.toml:7: routes[1].path: GET /r is a route already, at umbel.toml:4; remove one of them"],
    ),
    "routes that host and match do not tell apart": (
        UPSTREAM
        + ROUTE.replace('"/r"', '"/r/<a>"')
        + 'host = "a.example"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/r/<a>"')
        + 'host = "A.example"\nmatch = "query.x"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/r/<a>"')
        + 'host = "a.example"\nmatch = "query.x"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/r/<b>"')
        + 'host = "a.example"\nmatch = "query.y"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/r/<a>"')
        + 'host = "a.example"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/r/<b>"')
        + CALL,
        [
            "umbel.toml:13: routes[2].path: GET /r/<a> is a route already with the same match, at umbel.toml:8; remove"
            " one of them",
            'umbel.toml:18: routes[3].path: write "/r/<a>": routes that differ in match must give their variables the same'
            " names",
            "umbel.toml:23: routes[4].path: GET /r/<a> is a route already, at umbel.toml:4; remove one of them",
        ],
    ),
    "slashes that cannot be kept": (
        UPSTREAM
        + ROUTE
        + 'encoded_slash = "keep"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/a/<path:x>"')
        + 'encoded_slash = "keep"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/b/<x>"')
        + 'encoded_slash = "keep"\nmatch = "query.x"\n'
        + CALL
        + ROUTE.replace('"/r"', '"/b/<x>"')
        + CALL,
        [
            'umbel.toml:5: routes[0].encoded_slash: "keep" has an effect only in a path with variables',
            'umbel.toml:9: routes[1].encoded_slash: "keep" is not possible with <path:…>, whose value has slashes that'
            " are not encoded; write <name>",
            "umbel.toml:16: routes[3].encoded_slash: must be the same in all routes that differ in match only: the path is"
            " read before match is",
        ],
    ),
    "one host in two spellings": (
        UPSTREAM
        + "".join(ROUTE + f'host = "{host}"\n' + CALL for host in ("[2001:DB8:0::1]:080", "[2001:db8::1]:80"))
        + ROUTE
        + 'host = "a.example:0"\n'
        + CALL,
        [
            "umbel.toml:8: routes[1].path: GET /r is a route already, at umbel.toml:4; remove one of them",
            'umbel.toml:13: routes[2].host: "a.example:0" is not a host; write a name such as "shop.example",'
            ' "*.shop.example" or "shop.example:8000", in ASCII (xn--… for other letters)',
        ],
    ),
    "hosts and matches": (
        UPSTREAM
        + "".join(
            ROUTE.replace('"/r"', f'"/r{number}"') + f"{line}\n" + CALL
            for number, line in enumerate(
                (
                    'host = "*"',
                    'host = "a.*.example"',
                    'host = "http://a.example"',
                    'host = "bücher.example"',
                    'host = "a.example:99999"',
                    'host = "a.example."',
                    'match = "body.x"',
                    'match = "headers"',
                    'match = "headers.X_A"',
                    'match = "headers.connection"',
                    "match = \"'x'\"",
                    'match = "headers.["',
                )
            )
        ),
        [
            *(
                f'umbel.toml:{5 + 4 * number}: routes[{number}].host: "{host}" is not a host; write a name such as'
                ' "shop.example", "*.shop.example" or "shop.example:8000", in ASCII (xn--… for other letters)'
                for number, host in enumerate(
                    ("*", "a.*.example", "http://a.example", "bücher.example", "a.example:99999", "a.example.")
                )
            ),
            *(
                f"umbel.toml:{5 + 4 * number}: routes[{number}].match: match reads single header fields and query"
                " parameters, such as headers.x_beta or query.v"
                for number in (6, 7)
            ),
            *(
                f'umbel.toml:{5 + 4 * number}: routes[{number}].match: "{name}" is not in lower case, or belongs to one'
                " connection; name another header field"
                for number, name in ((8, "X_A"), (9, "connection"))
            ),
            "umbel.toml:45: routes[10].match: match reads nothing of the request; remove it, or name a field, such as"
            " headers.x_beta",
            "umbel.toml:49: routes[11].match: not a JMESPath expression: a name, a value or a closing bracket is missing at"
            " its end",
        ],
    ),
    "valid replicas beside a mistake in another key": (
        '[upstreams.u]\nurls = ["http://a", "http://b"]\ntimeuot = "1s"\n',
        ['umbel.toml:3: upstreams.u.timeuot: is not a key of [upstreams.u]; did you mean "timeout"?'],
    ),
    "mistakes in routes beside other mistakes have the right lines": (
        UPSTREAM + ROUTE + "banana = 1\n" + CALL + ROUTE + CALL + ROUTE + CALL,
        [
            "umbel.toml:5: routes[0].banana: is not a key of [[routes]]",
            "umbel.toml:8: routes[1].path: GET /r is a route already, at umbel.toml:4; remove one of them",
            "umbel.toml:11: routes[2].path: GET /r is a route already, at umbel.toml:4; remove one of them",
        ],
    ),
    "a route with mistakes in it and in its upstream is compiled": (
        '[upstreams.u]\nurl = ["http://h"]\nmax_queue = "5"\n'
        + ROUTE
        + 'deadline = 5\nqurey = ["q"]\ncalls.c = { upstream = "u", path = "/{nope}{?q}", optionl = true }\n'
        + 'answer.shape = "d"\n',
        [
            'umbel.toml:2: upstreams.u.url: is not a key of [upstreams.u]; did you mean "urls"?',
            "umbel.toml:3: upstreams.u.max_queue: needs a whole number, not a text",
            'umbel.toml:6: routes[0].deadline: 5 is not a duration; write a number and a unit, such as "250ms" or "2s"',
            'umbel.toml:7: routes[0].qurey: is not a key of [[routes]]; did you mean "query"?',
            'umbel.toml:8: routes[0].calls.c.optionl: is not a key of [routes.calls.c]; did you mean "optional"?',
            'umbel.toml:8: routes[0].calls.c.path: "nope" is an unknown name',
            'umbel.toml:9: routes[0].answer.shape: "d" is unknown',
        ],
    ),
    "names that no deadline header can have": (
        '[upstreams.t]\nurls = ["http://h"]\ndeadline_header = "TraceParent"\n'
        '[upstreams.p]\nurls = ["http://h"]\ndeadline_header = "proxy-timeout"\n'
        '[upstreams.f]\nurls = ["http://h"]\ndeadline_header = "x-forwarded-for"\n'
        '[upstreams.n]\nurls = ["http://h"]\ndeadline_header = "x-forwarded-for"\nforwarded = false\n',
        [
            'umbel.toml:3: upstreams.t.deadline_header: "traceparent" is written by Umbel with another meaning;'
            " write another name",
            'umbel.toml:6: upstreams.p.deadline_header: "proxy-timeout" belongs to one connection and is never forwarded;'
            " write another name",
            'umbel.toml:9: upstreams.f.deadline_header: "x-forwarded-for" is written by Umbel with another meaning'
            "; write another name",
        ],
    ),
    "header fields that Umbel does not send as configured": (
        '[upstreams.u]\nurls = ["http://h"]\nheaders = { via = "me", x-mine = "1" }\n'
        + ROUTE
        + '[routes.calls.c]\nupstream = "u"\npath = "/"\n'
        + 'headers = { x-forwarded-for = "{headers.x_a}", x-forwarded-user = "{headers.x_b}" }\n'
        + "forward_headers = [\n"
        + '"x-a",\n"TraceParent",\n"x-envoy-expected-rq-timeout-ms",\n"proxy-authorization",\n"accept-encoding"]\n',
        [
            'umbel.toml:3: upstreams.u.headers.via: "via" is written by Umbel, so this value is never sent; remove it',
            'umbel.toml:9: routes[0].calls.c.headers.x-forwarded-for: "x-forwarded-for" is written by Umbel,'
            " so this value is never sent; remove it, or set forwarded = false at the upstream",
            'umbel.toml:12: routes[0].calls.c.forward_headers[1]: "traceparent" is written by Umbel,'
            " so this value is never sent; remove it",
            "umbel.toml:13: routes[0].calls.c.forward_headers[2]: "
            '"x-envoy-expected-rq-timeout-ms" is written by Umbel,'
            " so this value is never sent; remove it, or give the upstream another deadline_header",
            'umbel.toml:14: routes[0].calls.c.forward_headers[3]: "proxy-authorization" belongs to one connection'
            " and is never forwarded; remove it",
            'umbel.toml:15: routes[0].calls.c.forward_headers[4]: "accept-encoding" is written by Umbel,'
            " so this value is never sent; remove it",
        ],
    ),
    "header fields that the upstream's settings leave to its calls": (
        '[upstreams.u]\nurls = ["http://h"]\nforwarded = false\ndeadline_header = false\n'
        + ROUTE
        + '[routes.calls.c]\nupstream = "u"\npath = "/"\n'
        + 'forward_headers = ["x-forwarded-for", "x-envoy-expected-rq-timeout-ms"]\n',
        [],
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(kind: str, tmp_path: Path) -> None:
    text, lines = MISTAKES[kind]
    assert mistakes(tmp_path, text) == lines
