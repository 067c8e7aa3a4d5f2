"""Messages about unknown and missing keys.

Each entry of the table has the text of a file and the exact messages about its mistakes.
"""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, mistakes

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "a misspelt section": ("upstream.x = 1\n", ['umbel.toml:1: upstream: is not a section; did you mean "upstreams"?']),
    "a section like no other": ("banana = 1\n", ["umbel.toml:1: banana: is not a section"]),
    "a top-level key that belongs in a section": (
        'deadline = "1s"\n',
        ["umbel.toml:1: deadline: is not a section; it belongs in [[routes]]"],
    ),
    "a misspelt key": (
        UPSTREAM + 'timout = "1s"\n',
        ['umbel.toml:3: upstreams.u.timout: is not a key of [upstreams.u]; did you mean "timeout"?'],
    ),
    "a hyphen for an underscore": (
        UPSTREAM + 'max-body = "1MB"\n',
        ['umbel.toml:3: upstreams.u.max-body: is not a key of [upstreams.u]; did you mean "max_body"?'],
    ),
    "a key in capitals": (
        UPSTREAM + 'Timeout = "1s"\n',
        ['umbel.toml:3: upstreams.u.Timeout: is not a key of [upstreams.u]; did you mean "timeout"?'],
    ),
    "a key of another section": (
        UPSTREAM + 'deadline = "1s"\n',
        ["umbel.toml:3: upstreams.u.deadline: is not a key of [upstreams.u]; it belongs in [[routes]]"],
    ),
    "keys of hypercorn.toml": (
        '[server]\nbind = ["127.0.0.1:8000"]\nkeep_alive_timeout = 5\nworkers = 2\n',
        [
            "umbel.toml:2: server.bind: is not a key of [server]; it belongs in hypercorn.toml",
            "umbel.toml:3: server.keep_alive_timeout: is not a key of [server]; it belongs in hypercorn.toml",
            "umbel.toml:4: server.workers: is not a key of [server]",
        ],
    ),
    "a key that resembles no other": (
        UPSTREAM + "banana = 1\n",
        ["umbel.toml:3: upstreams.u.banana: is not a key of [upstreams.u]"],
    ),
    "keys that do not exist": (
        UPSTREAM + 'proxy = "http://p"\nbanana = true\n',
        [
            "umbel.toml:3: upstreams.u.proxy: is not a key of [upstreams.u]; it belongs in [[routes]]",
            "umbel.toml:4: upstreams.u.banana: is not a key of [upstreams.u]",
        ],
    ),
    "a route's key in a call": (
        UPSTREAM + ROUTE + '[routes.calls.c]\nupstream = "u"\npath = "/"\ndeadline = "1s"\n',
        ["umbel.toml:8: routes[0].calls.c.deadline: is not a key of [routes.calls.c]; it belongs in [[routes]]"],
    ),
    "a misspelt key of an answer": (
        UPSTREAM + ROUTE + CALL + '[routes.answer]\nshap = "c"\n',
        ['umbel.toml:7: routes[0].answer.shap: is not a key of [routes.answer]; did you mean "shape"?'],
    ),
    "a misspelt key of a query parameter": (
        UPSTREAM + ROUTE + CALL + 'query.a = { typ = "int" }\n',
        ['umbel.toml:6: routes[0].query.a.typ: is not a key of [routes.query.a]; did you mean "type"?'],
    ),
    "a misspelt key of the server": (
        UPSTREAM + '[server]\nmax_boddy = "1MB"\n',
        ['umbel.toml:4: server.max_boddy: is not a key of [server]; did you mean "max_body"?'],
    ),
    "an unknown key of a log": (
        UPSTREAM + '[logs.access]\nfile = "a"\ncolour = "red"\n',
        ["umbel.toml:5: logs.access.colour: is not a key of [logs.access]"],
    ),
    "a level of compression, which is a key of logs": (
        UPSTREAM + "[compress]\nlevel = 5\nquality = 5\nproxyed = true\n",
        [
            "umbel.toml:4: compress.level: is not a key of [compress]; each coding has a fixed level (zstd 3, br 4, gzip 4)",
            "umbel.toml:5: compress.quality: is not a key of [compress]; each coding has a fixed level (zstd 3, br 4, gzip 4)",
            'umbel.toml:6: compress.proxyed: is not a key of [compress]; did you mean "proxied"?',
        ],
    ),
    "a format of a log that has only one": (
        UPSTREAM + '[logs.calls]\nformat = "combined"\n',
        ["umbel.toml:4: logs.calls.format: is not a key of [logs.calls]; it belongs in [logs.access]"],
    ),
    "a misspelt key of TLS": (
        UPSTREAM + 'tls.caa = "x"\n',
        ['umbel.toml:3: upstreams.u.tls.caa: is not a key of [upstreams.u.tls]; did you mean "ca"?'],
    ),
    "the name of a Python field": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", json_ = "body" }\n',
        ['umbel.toml:5: routes[0].calls.c.json_: is not a key of [routes.calls.c]; did you mean "json"?'],
    ),
    "keys in quotes": (
        UPSTREAM + '"time out" = 5\n"a.b" = 1\n',
        [
            'umbel.toml:3: upstreams.u."time out": is not a key of [upstreams.u]; did you mean "timeout"?',
            'umbel.toml:4: upstreams.u."a.b": is not a key of [upstreams.u]',
        ],
    ),
    "a key after a byte order mark": (
        "\ufeff[server]\nmax_boddy = 1\n",
        ['umbel.toml:2: server.max_boddy: is not a key of [server]; did you mean "max_body"?'],
    ),
    "keys in a file with Windows line ends": (
        "[server]\r\nmax_boddy = 1\r\n",
        ['umbel.toml:2: server.max_boddy: is not a key of [server]; did you mean "max_body"?'],
    ),
    "a route without calls": (
        UPSTREAM + ROUTE,
        ["umbel.toml:3: routes[0].calls: a route needs calls, or one of answer.shape, respond, redirect and proxy"],
    ),
    "an upstream and a call without required keys": (
        "[upstreams.u]\n" + ROUTE + "calls.c = {}\n",
        [
            "umbel.toml:1: upstreams.u.urls: is missing",
            "umbel.toml:4: routes[0].calls.c.path: is missing",
            "umbel.toml:4: routes[0].calls.c.upstream: is missing",
        ],
    ),
    "a misspelt required key": (
        UPSTREAM + '[[routes]]\npaht = "/r"\n' + CALL,
        ['umbel.toml:4: routes[0].paht: is not a key of [[routes]]; did you mean "path"?'],
    ),
    "invalid names": (
        '[upstreams."a b"]\n'
        'urls = ["http://h"]\n'
        "[upstreams.1a]\n"
        'urls = ["http://h"]\n' + ROUTE + 'calls."c d" = { upstream = "u", path = "/" }\n'
        'calls.item = { upstream = "u", path = "/" }\n',
        [
            'umbel.toml:1: upstreams."a b": "a b" is not a name; names are letters, digits, _ and -, first a letter or _',
            'umbel.toml:3: upstreams.1a: "1a" is not a name; names are letters, digits, _ and -, first a letter or _',
            'umbel.toml:7: routes[0].calls."c d": "c d" is not a name; names are letters, digits and _, not first a digit',
            'umbel.toml:8: routes[0].calls.item: a call cannot have the name "item", which is a table of the context',
        ],
    ),
    "a line break in a name": (
        '[upstreams."a\\nb"]\nurls = ["http://h"]\n',
        [
            'umbel.toml:1: upstreams."a\\nb": "a\\nb" is not a name; names are letters, digits, _ and -, first a letter or _'
        ],
    ),
    "wrong defaults that two tables inherit": (
        "[defaults.upstream]\n"
        "timeout = 5\n"
        "timout = 1\n"
        "[defaults.route]\n"
        "quorum = 2\n"
        "[defaults.routes]\n" + UPSTREAM + "[upstreams.v]\n"
        'urls = ["http://h"]\n' + ROUTE + CALL,
        [
            'umbel.toml:2: defaults.upstream.timeout: 5 is not a duration; write a number and a unit, such as "250ms" or "2s"',
            'umbel.toml:3: defaults.upstream.timout: is not a key of [defaults.upstream]; did you mean "timeout"?',
            'umbel.toml:5: defaults.route.quorum: quorum has an effect only with combine = "quorum"',
            'umbel.toml:6: defaults.routes: is not a table of [defaults]; did you mean "route"?',
        ],
    ),
    "wrong defaults that no table inherits": (
        "[defaults.upstream]\nbanana = 1\n[defaults.route.answer]\nstatus = 5\n",
        [
            "umbel.toml:2: defaults.upstream.banana: is not a key of [defaults.upstream]",
            "umbel.toml:4: defaults.route.answer.status: must be at least 200",
        ],
    ),
    "defaults of a wrong type": (
        "[defaults]\nupstream = 5\nroute = []\n",
        [
            "umbel.toml:2: defaults.upstream: needs one table, [defaults.upstream]",
            "umbel.toml:3: defaults.route: needs one table, [defaults.route]",
        ],
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(kind: str, tmp_path: Path) -> None:
    text, lines = MISTAKES[kind]
    assert mistakes(tmp_path, text) == lines
