"""Messages about ``respond``, ``redirect`` and ``status_from``, and the files of static bodies."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, ROUTE, UPSTREAM, loaded, mistakes
from umbel.composition.plan.compiler import compile_route
from umbel.composition.static_response import FILE_MAX, StaticResponse

OF_CALLS = UPSTREAM + ROUTE + CALL
AT = "umbel.toml:3: routes[0]"

MISTAKES: dict[str, tuple[str, list[str]]] = {
    "two bodies": (
        ROUTE + 'respond = { json = {}, text = "x" }\n',
        ["umbel.toml:3: routes[0].respond.text: json, text and file exclude each other: a response has one body"],
    ),
    "a body with a status that has none": (
        ROUTE + "respond = { status = 204, json = {} }\n",
        ["umbel.toml:3: routes[0].respond.status: a response with status 204 has no body; remove json"],
    ),
    "a status that answers a condition": (
        ROUTE + "respond = { status = 304 }\n",
        [
            "umbel.toml:3: routes[0].respond.status: 304 answers a condition or a range of a request, and this response is always the same"
        ],
    ),
    "a status out of range": (
        ROUTE + "respond = { status = 101 }\n",
        ["umbel.toml:3: routes[0].respond.status: must be at least 200"],
    ),
    "a line break in a header": (
        ROUTE + 'respond = { headers = { x-a = "b\\r\\nset-cookie: c=d" } }\n',
        [
            "umbel.toml:3: routes[0].respond.headers.x-a: the value of a header must not hold a line break or another control character except tab; remove it"
        ],
    ),
    "a header of the connection": (
        ROUTE + 'respond = { text = "", headers = { connection = "x" } }\n',
        [
            'umbel.toml:3: routes[0].respond.headers.connection: "connection" belongs to one connection and is written by Umbel; remove it'
        ],
    ),
    "a cookie and a caching rule": (
        ROUTE + 'respond = { text = "", headers = { set-cookie = "a=b", cache-control = "no-store" } }\n',
        [
            'umbel.toml:3: routes[0].respond.headers.cache-control: "cache-control" of an answer is written by Umbel; write cache_control in answer',
            'umbel.toml:3: routes[0].respond.headers.set-cookie: "set-cookie" of an answer is written by Umbel; remove it',
        ],
    ),
    "a coding that the body does not have": (
        ROUTE + 'calls.c.respond = { text = "", headers = { content-encoding = "gzip", x-a = "é" } }\n',
        [
            'umbel.toml:3: routes[0].calls.c.respond.headers: "content-encoding" would be wrong: the body is sent as it is; remove it',
            'umbel.toml:3: routes[0].calls.c.respond.headers: "x-a" may hold only printable ASCII characters',
        ],
    ),
    "a missing file": (
        ROUTE + 'respond = { file = "no.html" }\n',
        ["umbel.toml:3: routes[0].respond.file: the file cannot be read: no such file or directory"],
    ),
    "a missing file of a call": (
        ROUTE + 'calls.c = { respond = { file = "no.html" } }\n',
        ["umbel.toml:3: routes[0].calls.c.respond.file: the file cannot be read: no such file or directory"],
    ),
    "a directory in place of a file": (
        ROUTE + 'respond = { file = "." }\n',
        ["umbel.toml:3: routes[0].respond.file: the file cannot be read: it is a directory"],
    ),
    "a redirect beside calls and a response": (
        OF_CALLS + 'redirect.to = "/new"\nrespond.status = 404\n',
        [
            "umbel.toml:6: routes[0].redirect: respond and redirect exclude each other: a request has one answer",
            "umbel.toml:7: routes[0].respond: a route with respond makes no calls; remove one of both",
        ],
    ),
    "an answer that has no effect": (
        ROUTE + 'respond.status = 404\nanswer = { status = 201, etag = false }\n',
        ["umbel.toml:4: routes[0].answer: status of answer has no effect in a route with respond; remove it"],
    ),
    "a stream and a combination without calls": (
        ROUTE + 'stream = true\ncombine = "first"\nanswer.shape = "path"\n',
        [
            "umbel.toml:3: routes[0].stream: a stream sends the outcomes of calls, but this route has none",
            "umbel.toml:4: routes[0].combine: combine counts calls, but this route has none",
        ],
    ),
    "a delay beyond the deadline": (
        ROUTE + 'respond = { delay = "6s" }\n',
        ["umbel.toml:3: routes[0].respond: the delay of respond is longer than the deadline; write a longer deadline"],
    ),
    "a target with a variable host": (
        '[[routes]]\npath = "/r/<id>"\nredirect.to = "https://{id}/x"\n',
        [
            'umbel.toml:3: routes[0].redirect.to: needs a path that begins with one "/", or a URL such as "https://shop.example/new/{id}", whose origin holds no {name}'
        ],
    ),
    "a target that begins with a variable": (
        '[[routes]]\npath = "/r/<id>"\nredirect.to = "{id}"\n',
        [
            'umbel.toml:3: routes[0].redirect.to: needs a path that begins with one "/", or a URL such as "https://shop.example/new/{id}", whose origin holds no {name}'
        ],
    ),
    "a target of another host by two slashes": (
        ROUTE + 'redirect.to = "//evil.test/"\n',
        [
            'umbel.toml:3: routes[0].redirect.to: needs a path that begins with one "/", or a URL such as "https://shop.example/new/{id}", whose origin holds no {name}'
        ],
    ),
    "a target with a line break at its end": (
        ROUTE + 'redirect.to = "https://a.test\\n"\n',
        [
            'umbel.toml:3: routes[0].redirect.to: needs a path that begins with one "/", or a URL such as "https://shop.example/new/{id}", whose origin holds no {name}'
        ],
    ),
    "a target with a port out of range": (
        ROUTE + 'redirect.to = "https://a.test:65536/x"\n',
        ["umbel.toml:3: routes[0].redirect.to: the port of a URL must be from 1 to 65535"],
    ),
    "a target with the port 0": (
        ROUTE + 'redirect.to = "https://[::1]:0"\n',
        ["umbel.toml:3: routes[0].redirect.to: the port of a URL must be from 1 to 65535"],
    ),
    "an unknown name in a target": (
        '[[routes]]\npath = "/r/<id>"\nredirect.to = "/new/{ib}"\n',
        ['umbel.toml:3: routes[0].redirect.to: "ib" is an unknown name'],
    ),
    "a list in the path of a target": (
        ROUTE + 'query = { ids = { type = "list[int]" } }\nredirect.to = "/new/{ids}{?ids}"\n',
        [
            'umbel.toml:4: routes[0].redirect.to: "ids" is a list, and a path segment takes one value; write it into the query'
        ],
    ),
    "a kept query beside parameters of the template": (
        ROUTE + 'query = ["a"]\nredirect = { to = "/new{?a}", query = "keep" }\n',
        [
            'umbel.toml:4: routes[0].redirect.to: query = "keep" sends all parameters of the client already; remove {?…} and {&…}'
        ],
    ),
    "slashes of a parameter that has none": (
        '[[routes]]\npath = "/r/<id>"\nredirect.to = "/new/{+id}"\n',
        [
            "umbel.toml:3: routes[0].redirect.to: {+id}: the operator + is not allowed; {name}, {?a,b} and {&a,b} are"
        ],
    ),
    "slashes in a query": (
        '[[routes]]\npath = "/r/<path:id>"\nredirect.to = "/new?a={+id}"\n',
        [
            "umbel.toml:3: routes[0].redirect.to: {+id}: the operator + is not allowed; {name}, {?a,b} and {&a,b} are"
        ],
    ),
    "the body in a target": (
        '[[routes]]\npath = "/r"\nmethods = ["POST"]\nredirect.to = "/new/{body.id}"\n',
        [
            "umbel.toml:4: routes[0].redirect.to: a redirect cannot read the request's body: it is sent without waiting for the body"
        ],
    ),
    "a status of an unknown call": (
        OF_CALLS + 'answer.status_from = "d"\n',
        ['umbel.toml:6: routes[0].answer.status_from: there is no call "d"'],
    ),
    "a status of many responses in a stream": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", each = "`[1]`" }\nstream = true\nanswer.status_from = "c"\n',
        [
            'umbel.toml:7: routes[0].answer.status_from: "c" has many responses (each), so none gives the status; remove it',
            "umbel.toml:7: routes[0].answer.status_from: the status of a stream is sent before any call has ended; remove status_from or stream",
        ],
    ),
    "a call with a path only": (
        UPSTREAM + ROUTE + 'calls.c = { path = "/" }\n',
        ["umbel.toml:5: routes[0].calls.c.upstream: is missing"],
    ),
    "a call with a response and an unknown upstream": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "v", respond = { json = 1 }, path = "/{x}" }\n',
        [
            'umbel.toml:5: routes[0].calls.c.path: "x" is an unknown name',
            'umbel.toml:5: routes[0].calls.c.upstream: there is no upstream "v"; add [upstreams.v]',
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_exactly_these_lines(text: str, lines: list[str], tmp_path: Path) -> None:
    assert mistakes(tmp_path, text) == lines


def test_a_file_is_relative_to_the_configuration_file_that_names_it(tmp_path: Path) -> None:
    text = 'include = ["more/*.toml"]\n' + ROUTE + 'calls.c.respond.file = "a.JS"\n'
    more = '[[routes]]\npath = "/m"\nrespond.file = "page.html"\n'
    files = {"a.JS": "1", "more/m.toml": more, "more/page.html": "é", "page.html": "wrong"}
    config = loaded(tmp_path, text, files)
    of_call = compile_route(config, 0).calls[0].rules.caller
    of_route = compile_route(config, 1).static
    assert isinstance(of_route, StaticResponse)
    assert (of_route.content, of_route.fields) == ("é".encode(), ((b"content-type", b"text/html; charset=utf-8"),))
    assert getattr(of_call, "response").fields == ((b"content-type", b"text/javascript; charset=utf-8"),)  # noqa: B009


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("openapi.yaml", b"application/yaml"),
        ("icon.svg", b"image/svg+xml"),
        ("data.json.gz", b"application/octet-stream"),
        ("unknown", b"application/octet-stream"),
    ],
)
def test_an_ending_gives_the_media_type(name: str, media: bytes, tmp_path: Path) -> None:
    config = loaded(tmp_path, ROUTE + f'respond.file = "{name}"\n', {name: "x"})
    static = compile_route(config, 0).static
    assert isinstance(static, StaticResponse)
    assert static.fields == ((b"content-type", media),)


def test_a_file_over_the_bound_is_a_mistake_and_one_at_the_bound_is_none(tmp_path: Path) -> None:
    text = ROUTE + 'respond.file = "f"\n'
    assert mistakes(tmp_path, text, {"f": b"x" * FILE_MAX}) == []
    (line,) = mistakes(tmp_path, text, {"f": b"x" * (FILE_MAX + 1)})
    assert line.startswith(f"{AT}.respond.file: the file is larger than 1 MiB")


def test_retries_of_a_call_with_a_response_are_a_warning(tmp_path: Path) -> None:
    from umbel.composition.plan.warnings import warn

    config = loaded(tmp_path, ROUTE + "calls.c = { respond = { json = 1 }, retry = { attempts = 2 } }\n")
    assert list(warn(config)) == [
        (("routes", 0, "calls", "c", "retry"), "has no effect beside respond, since nothing is sent")
    ]


@pytest.mark.parametrize(("redirects", "warned"), [("pass", False), ("follow", True), ("fail", False)])
def test_following_redirects_of_a_call_with_a_response_is_a_warning(
    redirects: str, warned: bool, tmp_path: Path
) -> None:
    from umbel.composition.plan.warnings import warn

    config = loaded(tmp_path, ROUTE + f'calls.c = {{ respond = {{ status = 302 }}, redirects = "{redirects}" }}\n')
    found = [(at[-1], reason) for at, reason in warn(config)]
    assert found == ([("redirects", "has no effect beside respond, since nothing is sent")] if warned else [])


def test_a_401_without_its_challenge_is_a_warning(tmp_path: Path) -> None:
    from umbel.composition.plan.warnings import warn

    config = loaded(tmp_path, ROUTE + "respond.status = 401\n")
    assert [at for at, _ in warn(config)] == [("routes", 0, "respond", "status")]
    text = ROUTE + 'respond = { status = 401, headers = { WWW-Authenticate = "Bearer" } }\n'
    assert list(warn(loaded(tmp_path, text))) == []


def test_a_file_is_read_again_at_the_next_load(tmp_path: Path) -> None:
    text = ROUTE + 'respond.file = "f.txt"\n'
    first, second = (compile_route(loaded(tmp_path, text, {"f.txt": content}), 0).static for content in ("1", "2"))
    assert isinstance(first, StaticResponse)
    assert isinstance(second, StaticResponse)
    assert (first.content, second.content) == (b"1", b"2")
