"""Mistakes in requests of a client, over real sockets: each gets a 4xx response with the reason.

Each case is one request. Its response must be a problem document whose detail names the wrong part. No record of the
request may be above level info, and the ``app`` log must have no record of it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.gateway.program import SERVERS, WAYS, Program, route, running, up
from tests.support.server.serving import connected
from tests.support.upstream.raw_server import Peer, raw_server, response


class Mistake(NamedTuple):
    """A request, the status of its response, and words in the detail of its problem document."""

    target: str
    status: int
    words: tuple[str, ...]
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    method: str = ""


JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
SOURCE = '[routes.calls.source]\nupstream = "source"\npath = "/"\n'

ROUTES = "".join(
    (
        route("/length", answer='shape = "{n: length(body.x)}"'),
        route("/sort", answer='shape = "sort(body)"'),
        route("/join", answer="shape = \"join(',', body.tags)\""),
        route("/sum", answer='shape = "{source: source, n: sum(body.xs[].n)}"') + SOURCE,
        route("/mixed", answer="shape = \"join(',', [body.a, source])\"") + SOURCE,
        route("/piped", answer='shape = "body.xs | sort_by(@, &n)"'),
        route("/when", call="when = \"starts_with(body.name, 'a')\""),
        route("/with", "/x/{v}", call='with = { v = "max(body.xs)" }\nmethod = "POST"'),
        route("/params", call='params = { p = "keys(body.o)" }'),
        route("/param-object", call='params = { p = "body.o" }'),
        route("/json", call='json = { a = "abs(body.n)" }'),
        route("/form", call='form = "body"'),
        route("/form-field", call='form = { a = "body.a" }'),
        route("/optional", call='when = "length(body.x) > `0`"\noptional = true'),
        route("/query-length", keys='query = { q = { type = "int" } }', answer='shape = "length(query.q)"'),
        route("/query-abs", keys='query = ["q"]', answer='shape = "abs(query.q)"'),
        route("/header-abs", answer='shape = "abs(headers.x_n)"'),
        route("/segment", "/x/{body.id}"),
        route("/deep-segment", "/x/{body.user.id}"),
        route("/two-segments", "/x/{body.a}/{body.b}"),
        route("/list-query", "/x{?ids}", call='with = { ids = "body.ids" }'),
        route("/header", call='headers = { x-a = "{body.a}" }'),
        route("/answer-header", answer='headers = { x-a = "{body.a}" }'),
        route("/stream-header", keys="stream = true", answer='headers = { x-a = "{body.a}" }'),
        route("/stream-shape", keys="stream = true", call='when = "length(body.x) > `0`"'),
        route("/long-query", keys='query = ["q"]', call='params = { q = "query.q" }'),
        route("/each", "/x/{item}", call='each = "body.ids"\nmax_items = 3'),
        route("/each-item", "/x/{item.id}", call='each = "body.ids"'),
        route("/each-or", "/x/{item}", call='each = "body.ids || source"\nmax_items = 3') + SOURCE,
        route("/each-query", "/x/{item}", keys='query = ["q"]', call='each = "query.q"'),
        route("/each-expression", "/x/{item}", call='each = "map(&id, body.ids)"'),
        route("/echo", answer='shape = "body"', call='when = "`false`"'),
        route("/small", keys='max_body = "1KB"', answer='shape = "body"'),
        route("/form-body", keys='body = "form"', answer='shape = "body"'),
        route("/typed", keys='query = { i = { type = "int" }, f = { type = "float" }, b = { type = "bool" } }'),
        route("/required", keys="query = { q = { required = true } }"),
        route("/int/<int:id>", "/x/{id}"),
        route("/float/<float:id>", "/x/{id}"),
        route("/signed/<int(signed=True,max=99):id>", "/x/{id}"),
        route("/uuid/<uuid:id>", "/x/{id}"),
        route("/text/<id>", "/x/{id}", answer='headers = { x-a = "{id}" }'),
        route("/number", "/x/{v}", keys='query = ["q"]', call='with = { v = "to_number(query.q)" }'),
        route("/steps", answer='shape = "body.xs[?n > `0`].{a: n, b: n}"'),
        route("/steps-beside", answer='shape = "{a: body.xs[*].[@, @], b: source}"') + SOURCE,
        route("/order", answer='shape = "body.x < source"') + SOURCE,
        route("/found", answer='shape = "contains(source, body.x)"') + SOURCE,
        route("/total", call='json = { a = "sum(body.xs)" }'),
        route("/cookie", call='forward_cookies = ["c"]', answer='shape = "abs(headers.cookie)"'),
    )
)
MEMBER = 'The member "x" of the body'

BIG = b'{"xs":[%b,%b]}' % (b"9" * 4300, b"9" * 4300)
"""Numbers whose sum exceeds a bound."""

MISTAKES: dict[str, Mistake] = {
    # Expressions.
    "max of a list of objects": Mistake("/with", 400, ('"xs"', "no value"), b'{"xs":[{}]}', JSON),
    "values that take too many steps": Mistake(
        "/steps", 400, ('"xs"', "too many"), b'{"xs":[%b1]}' % (b"1," * 99_999), JSON
    ),
    "too many steps beside a call": Mistake(
        "/steps-beside", 400, ('"xs"', "too many"), b'{"xs":[%b1]}' % (b"1," * 99_999), JSON
    ),
    "a sum of too many digits": Mistake("/total", 400, ('"xs"',), BIG, JSON),
    # Templates.
    "an object in a segment": Mistake("/segment", 400, ('"id"', "is an object"), b'{"id":{}}', JSON),
    "a list in a segment": Mistake("/segment", 400, ('"id"', "is a list"), b'{"id":[1]}', JSON),
    "no value in a segment": Mistake("/segment", 400, ('"id"', "no value"), b"{}", JSON),
    "a dot segment": Mistake("/segment", 400, ('"id"', "dot segment"), b'{"id":".."}', JSON),
    "an empty segment": Mistake("/segment", 400, ('"id"', "empty"), b'{"id":""}', JSON),
    "a long segment": Mistake("/segment", 400, ('"id"', "longer"), b'{"id":"%b"}' % (b"a" * 9000), JSON),
    "a deep value in a segment": Mistake("/deep-segment", 400, ('"user.id"',), b'{"user":{"id":[]}}', JSON),
    "a path into a text": Mistake("/deep-segment", 400, ('"user.id"',), b'{"user":"id"}', JSON),
    "a long target": Mistake(
        "/two-segments", 400, ('"a"', "target"), b'{"a":"%b","b":"%b"}' % (b"%" * 8000, b"/" * 7000), JSON
    ),
    "a long target of a list": Mistake(
        "/list-query", 400, ('"ids"', "target"), b'{"ids":[%b1]}' % (b"1," * 9000), JSON
    ),
    "an object in a list of a query": Mistake(
        "/list-query", 400, ('"ids"', "an item that is an object"), b'{"ids":[{}]}', JSON
    ),
    "a long target of the client's query": Mistake("/long-query?q=" + "/" * 7900, 400, ('"q"', "target")),
    "an object in a query": Mistake("/param-object", 400, ('"o"', "an object"), b'{"o":{"a":1}}', JSON),
    "an object in a form": Mistake("/form", 400, ("A member of the body", "an object"), b'{"a":{}}', JSON),
    "a list as a form": Mistake("/form", 400, ("The body", "not an object"), b"[]", JSON),
    "an object in a list of a form": Mistake("/form", 400, ("an item that is an object",), b'{"a":[{}]}', JSON),
    "an object in a form's field": Mistake("/form-field", 400, ('"a"', "an object"), b'{"a":{}}', JSON),
    "an infinite number": Mistake("/number?q=1e999", 400, ('"q"', "no value")),
    "what only Python takes for a number": Mistake("/number?q=nan", 400, ('"q"', "no value")),
    "a number of 5000 digits": Mistake("/number?q=" + "9" * 5000, 400, ('"q"', "no value")),
    # each.
    "more items than max_items": Mistake("/each", 400, ('"ids"', "4 items", "3"), b'{"ids":[1,2,3,4]}', JSON),
    "an each over an object": Mistake("/each", 400, ('"ids"', "a list"), b'{"ids":{}}', JSON),
    "an each over a text": Mistake("/each", 400, ('"ids"', "a list"), b'{"ids":"abc"}', JSON),
    "an each over a number": Mistake("/each", 400, ('"ids"', "a list"), b'{"ids":0}', JSON),
    "an each over a query": Mistake("/each-query?q=a", 400, ('The query parameter "q"', "a list")),
    "an each over the client's list or a call's": Mistake(
        "/each-or", 400, ('"ids"', "9 items"), b'{"ids":[1,2,3,4,5,6,7,8,9]}', JSON
    ),
    "an item that is no segment": Mistake("/each", 400, ('An item of the member "ids"',), b'{"ids":[{}]}', JSON),
    "an item without a field": Mistake("/each-item", 400, ('"id" of an item',), b'{"ids":[{"id":null},5]}', JSON),
    # Bodies.
    "a body that is no JSON": Mistake("/echo", 400, ("JSON",), b"{", JSON),
    "NaN": Mistake("/echo", 400, ("JSON",), b"[NaN]", JSON),
    "Infinity": Mistake("/echo", 400, ("JSON",), b"-Infinity", JSON),
    "a number out of range": Mistake("/echo", 400, ("JSON",), b"1e999", JSON),
    "an integer of 5000 digits": Mistake("/echo", 400, ("JSON",), b"9" * 5000, JSON),
    "an encoded surrogate": Mistake("/echo", 400, ("JSON",), b'"\xed\xa0\x80"', JSON),
    "bytes that are no UTF-8": Mistake("/echo", 400, ("JSON",), b'"\xff"', JSON),
    "a raw control character": Mistake("/echo", 400, ("JSON",), b'"\x00"', JSON),
    "UTF-16": Mistake("/echo", 400, ("JSON",), '"a"'.encode("utf-16"), JSON),
    "two values": Mistake("/echo", 400, ("JSON",), b"1 2", JSON),
    "too deep": Mistake("/echo", 400, ("deep",), b"[" * 250 + b"]" * 250, JSON),
    "far too deep": Mistake("/echo", 400, ("deep",), b"[" * 100_000, JSON),
    "too many values": Mistake("/echo", 400, ("values",), b"[" + b"1," * 210_000 + b"1]", JSON),
    "an empty body": Mistake("/echo", 400, ("missing",), b"", JSON),
    "white space": Mistake("/echo", 400, ("JSON",), b"  ", JSON),
    "no type": Mistake("/echo", 415, ("application/json",), b"{}"),
    "another type": Mistake("/echo", 415, ("application/json",), b"{}", (("content-type", "text/plain"),)),
    "another charset": Mistake(
        "/echo", 415, ("UTF-8",), b"{}", (("content-type", "application/json; charset=utf-16"),)
    ),
    "a charset of Python's": Mistake(
        "/echo", 415, ("UTF-8",), b"{}", (("content-type", "application/json; charset=punycode"),)
    ),
    "a type that is none": Mistake("/echo", 415, ("application/json",), b"{}", (("content-type", '\xff/;;="=;'),)),
    "a body in an unknown coding": Mistake(
        "/echo", 415, ("Content-Encoding",), b"{}", (*JSON, ("content-encoding", "compress"))
    ),
    "a body that is not gzip": Mistake("/echo", 400, ("gzip",), b"{}", (*JSON, ("content-encoding", "gzip"))),
    "a truncated gzip body": Mistake(
        "/echo", 400, ("incomplete gzip",), gzip.compress(b"{}")[:-1], (*JSON, ("content-encoding", "gzip"))
    ),
    "a bomb of a body": Mistake(
        "/echo", 413, ("100 times",), gzip.compress(b" " * 20_000), (*JSON, ("content-encoding", "gzip"))
    ),
    "a coded body over the bound": Mistake(
        "/small", 413, ("larger",), gzip.compress(b"[" + b"1," * 500 + b"1]"), (*JSON, ("content-encoding", "gzip"))
    ),
    "a body over the bound": Mistake("/small", 413, ("larger",), b" " * 1001, JSON),
    "a form that is none": Mistake("/form-body", 400, ("form",), b"\xff=\xff", FORM),
    "a form of bad escapes": Mistake("/form-body", 400, ("form",), b"a=%ff", FORM),
    "a form of too many fields": Mistake("/form-body", 400, ("form",), b"a&" * 1001, FORM),
    "a form of percent signs": Mistake("/form-body", 400, ("form",), b"a=" + b"%" * 2000, FORM),
    "a form of escapes that are none": Mistake("/form-body", 400, ("form",), b"a=" + b"%zz" * 2000, FORM),
    "JSON for a form": Mistake("/form-body", 415, ("form",), b"{}", JSON),
    # Queries and paths.
    "a text for an int": Mistake("/typed?i=x", 400, ('"i"', "whole number")),
    "an int of 5000 digits": Mistake("/typed?i=" + "9" * 5000, 400, ('"i"',)),
    "digits of another script": Mistake("/typed?i=%D9%A3", 400, ('"i"',)),
    "a float out of range": Mistake("/typed?f=1e999", 400, ('"f"',)),
    "a float of 5000 digits": Mistake("/typed?f=" + "9" * 5000, 400, ('"f"',)),
    "nan for a float": Mistake("/typed?f=nan", 400, ('"f"',)),
    "a text for a bool": Mistake("/typed?b=2", 400, ('"b"',)),
    "the last of two is wrong": Mistake("/typed?i=1&i=x", 400, ('"i"',)),
    "a missing parameter": Mistake("/required", 400, ('"q"', "missing")),
    "an int above 64 bits": Mistake("/typed?i=9223372036854775808", 400, ('"i"', "to 9223372036854775807")),
    "a query that is no UTF-8": Mistake("/required?q=%ff", 400, ("query",)),
    "an encoded surrogate in a query": Mistake("/required?q=%ED%A0%80", 400, ("query",)),
    "a raw byte in a query": Mistake("/required?q=\xff", 400, ("query",)),
    "a path that is no UTF-8": Mistake("/text/%ff", 400, ("UTF-8",)),
    "an encoded surrogate in a path": Mistake("/text/%ED%A0%80", 400, ("UTF-8",)),
    "an encoded NUL in a path": Mistake("/text/a%00", 400, ("NUL",)),
    "an encoded slash in a path": Mistake("/text/a%2fb", 400, ("slash",)),
    "a bad escape in a path": Mistake("/text/%zz", 400, ("percent",)),
    "an int of 5000 digits in a path": Mistake("/int/" + "9" * 5000, 404, ("route",)),
    "a text for an int in a path": Mistake("/int/x", 404, ("route",)),
    "a float out of range in a path": Mistake("/float/" + "9" * 400 + ".0", 404, ("route",)),
    "an exponent in a path": Mistake("/float/1e999", 404, ("route",)),
    "an int above its bound": Mistake("/signed/100", 404, ("route",)),
    "a signed int of 5000 digits": Mistake("/signed/-" + "9" * 5000, 404, ("route",)),
    "a text for a uuid": Mistake("/uuid/123e4567-e89b-12d3-a456-42661417400g", 404, ("route",)),
    "another method": Mistake("/typed", 405, ("method",), method="PATCH"),
}

FITTING: dict[str, Mistake] = {
    # Values that a function does not accept: the function gives null.
    "length of a number": Mistake("/length", 200, (), b'{"x":1}', JSON),
    "length of nothing": Mistake("/length", 200, (), b"{}", JSON),
    "length of a member of a list": Mistake("/length", 200, (), b"[]", JSON),
    "length of a member of null": Mistake("/length", 200, (), b"null", JSON),
    "length of true": Mistake("/length", 200, (), b'{"x":true}', JSON),
    "sort of an object": Mistake("/sort", 200, (), b'{"a":1}', JSON),
    "sort of mixed types": Mistake("/sort", 200, (), b'[1,"a"]', JSON),
    "sort of lists": Mistake("/sort", 200, (), b"[[1],[2]]", JSON),
    "sort of a text": Mistake("/sort", 200, (), b'"abc"', JSON),
    "join of numbers": Mistake("/join", 200, (), b'{"tags":[1,2]}', JSON),
    "join of a text": Mistake("/join", 200, (), b'{"tags":"a"}', JSON),
    "sum of texts beside a call": Mistake("/sum", 200, (), b'{"xs":[{"n":"a"}]}', JSON),
    "sum of nothing beside a call": Mistake("/sum", 200, (), b'{"xs":3}', JSON),
    "one list of the client's value and a call's": Mistake("/mixed", 200, (), b'{"a":[1]}', JSON),
    "sort_by of mixed keys behind a pipe": Mistake("/piped", 200, (), b'{"xs":[{"n":1},{"n":"a"}]}', JSON),
    "starts_with of a number": Mistake("/when", 200, (), b'{"name":1}', JSON),
    "keys of a list": Mistake("/params", 200, (), b'{"o":[]}', JSON),
    "abs of a text in a body": Mistake("/json", 200, (), b'{"n":"a"}', JSON),
    "length of a number in a query": Mistake("/query-length?q=5", 200, ()),
    "abs of a text in a query": Mistake("/query-abs?q=x", 200, ()),
    "abs of a query that is not there": Mistake("/query-abs", 200, ()),
    "abs of a header": Mistake("/header-abs", 200, (), headers=(("x-n", "\xff\xfe"),)),
    "abs of cookies": Mistake("/cookie", 200, (), headers=(("cookie", "c=\xff\x80; c; =;;"),)),
    "an answer that would be streamed": Mistake(
        "/when", 200, (), b'{"name":1}', (*JSON, ("accept", "text/event-stream"))
    ),
    "an expression before a stream": Mistake("/stream-shape", 200, (), b'{"x":1}', JSON),
    "values nested up to the bound": Mistake("/sort", 200, (), b'{"a":' * 190 + b"1" + b"}" * 190, JSON),
    "an optional call whose condition fails": Mistake("/optional", 200, (), b'{"x":1}', JSON),
    "an expression of an each": Mistake("/each-expression", 200, (), b'{"ids":5}', JSON),
    # Values.
    "another script of a path in a header": Mistake("/text/%E2%82%AC", 200, ()),
    "a control character in a path": Mistake("/text/a%0d%0ab", 200, ()),
    "a byte order mark": Mistake("/echo", 200, (), b"\xef\xbb\xbf{}", JSON),
    "a low surrogate first": Mistake("/echo", 200, (), b'["\\udc00\\ud800"]', JSON),
    "a lone surrogate": Mistake("/echo", 200, (), b'"\\ud800"', JSON),
    "an object in a header of a stream": Mistake("/stream-header", 200, (), b'{"a":{}}', JSON),
    "an object in a header of the answer": Mistake("/answer-header", 200, (), b'{"a":{}}', JSON),
    "another script in a header": Mistake("/header", 200, (), '{"a":"\u20ac"}'.encode(), JSON),
    "a NUL in a header": Mistake("/header", 200, (), b'{"a":"\\u0000"}', JSON),
    "a line end in a header": Mistake("/header", 200, (), b'{"a":"x\\r\\nx-admin: 1"}', JSON),
    "a list in a header": Mistake("/header", 200, (), b'{"a":[1]}', JSON),
    "a number of 400 digits": Mistake("/echo", 200, (), b"9" * 400, JSON),
    "a number beside a text": Mistake("/order", 200, (), b'{"x":1}', JSON),
    "a number to be found in a text": Mistake("/found", 200, (), b'{"x":1}', JSON),
    "-0.0": Mistake("/echo", 200, (), b"-0.0", JSON),
    "a form of some percent signs": Mistake("/form-body", 200, (), b"a=%&b=100%&c=%zz", FORM),
    "null": Mistake("/echo", 200, (), b"null", JSON),
    "an int of 64 bits in a path": Mistake("/int/18446744073709551615", 200, ()),
    "a uuid": Mistake("/uuid/123e4567-e89b-12d3-a456-426614174000", 200, ()),
    "very many parameters that are not declared": Mistake("/required?q=1" + "&a" * 3000, 200, ()),
    "a parameter that is not declared of bytes that are no UTF-8": Mistake("/required?q=1&utm=caf%E9&%ff=%zz", 200, ()),
    "an int of 64 bits": Mistake("/typed?i=9223372036854775807", 200, ()),
    "doubled parameters": Mistake("/typed?i=x&i=1", 200, ()),
    "an each over null": Mistake("/each", 200, (), b'{"ids":null}', JSON),
    "an each over as many as may be": Mistake("/each", 200, (), b'{"ids":[1,2,3]}', JSON),
    "the values fit": Mistake("/mixed", 200, (), b'{"a":"x"}', JSON),
}


async def texts(peer: Peer) -> None:
    """An upstream that answers every request with a text."""
    while (await peer.read_request())[0]:
        await peer.send(response(b'"text"'))


async def ask(program: Program, mistake: Mistake) -> list[str]:
    """Send the request, and return the differences between its response and the expected one."""
    method = mistake.method or ("POST" if mistake.body or mistake.headers[:1] == JSON else "GET")
    reply, _ = await program.ask(mistake.target, method, mistake.headers, mistake.body)
    if reply.status != mistake.status:
        return [f"{reply.status} instead of {mistake.status}: {reply.body[:300]!r}"]
    if reply.status == 200:
        return []
    if reply["content-type"] != "application/problem+json":
        return [f"the answer is {reply['content-type']}"]
    detail = reply.json.get("detail", "")
    return [f"{word!r} is not in {detail!r}" for word in mistake.words if word not in detail]


@SERVERS
@WAYS
async def test_a_mistake_of_a_client_is_a_4xx_and_no_error_record(stock: bool, way: str, tmp_path: Path) -> None:
    wrong: dict[str, list[str]] = {}
    async with raw_server(texts) as upstream, raw_server(texts) as source:
        config = up(upstream) + up(source, name="source") + ROUTES
        async with running(tmp_path, config, stock=stock) as program:
            for name, mistake in {**MISTAKES, **FITTING}.items():
                if found := await ask(program, mistake):
                    wrong[name] = found
    assert wrong == {}, json.dumps(wrong, indent=1)
    assert {line["level"] for line in program.lines("access")} == {"info"}
    assert {line["level"] for line in program.lines("calls")} == {"info"}
    assert [line for line in program.lines("app") if line["level"] != "info"] == []


ODD = [
    *("", ";", ",", "=", ';;="=;', '"', "\xff\xfe", "q=1e999", "*/*;q=nan", "9" * 5000, "-1", "W/", '"\\', "%ff%00"),
    *("\t,\t;", "wait=" + "9" * 5000, "wait=-1, wait=nan", "a=" * 500, "text/event-stream;q=1e999"),
    *("application/x-ndjson;q=\xb2", "bytes=" + "9" * 5000 + "-", "Basic %", "Bearer \xff", "[::1", "a@b"),
]
FIELDS = [
    *("accept", "accept-language", "accept-encoding", "prefer", "x-envoy-upstream-rq-timeout-ms", "if-none-match"),
    *("if-modified-since", "range", "cookie", "content-type", "traceparent", "tracestate", "baggage", "x-request-id"),
    *("via", "forwarded", "x-forwarded-for", "x-forwarded-host", "authorization", "referer", "origin", "user-agent"),
    *("x-a", "x-forwarded-proto", "x-real-ip", "cache-control", "te", "max-forwards", "if-match", "if-range", "date"),
]


LACKING: dict[str, Mistake] = {
    "an optional call beside another": Mistake("/optional-part", 200, (), b'{"x":1}', JSON),
    "an optional each": Mistake("/optional-each", 200, (), b'{"ids":[1,[]]}', JSON),
    "a stream whose shape fails": Mistake("/sum", 200, (), BIG, (*JSON, ("accept", "text/event-stream"))),
}


async def test_a_part_missing_by_a_mistake_of_the_client_is_no_warning(tmp_path: Path) -> None:
    other = '[routes.calls.other]\nupstream = "up"\npath = "/"\n'
    config = route("/optional-part", "/x/{body.y}", call="optional = true") + other
    config += route("/optional-each", "/x/{item}", call='each = "body.ids"\noptional = true')
    config += route("/sum", answer='shape = "{n: sum(body.xs)}"')
    async with raw_server(texts) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert {name: found for name, mistake in LACKING.items() if (found := await ask(program, mistake))} == {}
    assert [(line["level"], line["completed"]) for line in program.lines("access")] == [("info", False)] * 3
    assert {line["level"] for line in program.lines("calls")} == {"info"}


@SERVERS
@WAYS
async def test_an_odd_header_of_a_client_causes_no_error_record(stock: bool, way: str, tmp_path: Path) -> None:
    wrong: list[object] = []
    trusting = '[server]\ntrusted_proxies = ["127.0.0.1"]\n'
    forwarding = 'forward_headers = ["x-a", "authorization", "baggage"]\nforward_cookies = ["c"]'
    async with raw_server(texts) as upstream:
        config = trusting + up(upstream) + route(call=forwarding)
        async with running(tmp_path, config, stock=stock) as program, connected(program.port) as client:
            for name in FIELDS:
                for value in ODD:
                    reply = await client.request("GET", "/r", [(name, value)])
                    if reply.status >= 500:
                        wrong.append((name, value, reply.status, reply.body))
                        break
    assert wrong == []
    assert {line["level"] for line in program.lines("access")} == {"info"}
    assert [line for line in program.lines("app") if line["level"] != "info"] == []


UPSTREAMS: dict[str, tuple[str, str]] = {
    "an expression": (route(answer='shape = "sum(source.x)"') + SOURCE, '{"x":[1e308,1e308]}'),
    "an expression of both": (
        route(answer='shape = "[query.q, sum(source.x)]"', keys='query = ["q"]') + SOURCE,
        '{"x":[1e308,1e308]}',
    ),
    "an each that is too long": (route(target="/x/{item}", call='each = "source"\nmax_items = 2') + SOURCE, "[1,2,3]"),
    "an each that is no list": (route(target="/x/{item}", call='each = "source"') + SOURCE, '"abc"'),
    "a segment": (route(target="/x/{source.id}") + SOURCE, '{"id":{}}'),
    "a long target": (
        route(target="/x/{source.a}/{q}", keys='query = ["q"]', call='params = { p = "source.a" }') + SOURCE,
        json.dumps({"a": "%" * 3000}),
    ),
}


@pytest.mark.parametrize("case", UPSTREAMS.values(), ids=UPSTREAMS)
async def test_the_same_mistake_of_an_upstream_is_a_502(case: tuple[str, str], tmp_path: Path) -> None:
    text, said = case

    async def saying(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(response(said.encode()))

    async with (
        raw_server(texts) as upstream,
        raw_server(saying) as source,
        running(tmp_path, up(upstream) + up(source, name="source") + text) as program,
    ):
        reply, _ = await program.ask("/r?q=a")
    assert reply.status == 502
    (line,) = program.lines("access")
    assert line["level"] == "error"
    assert line["kind"] in ("bad-request", "too-many")
