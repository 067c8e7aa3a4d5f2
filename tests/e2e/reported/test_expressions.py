"""Expressions over missing parts and values of unexpected types: the expression gives null, and the answer is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import write
from tests.support.gateway.program import route, running, up
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel.cli import main
from umbel.config.loading.load import load
from umbel.core.errors import ConfigError
from umbel.gateway.checks import CHECKS

ITEMS = [{"sku": "a", "price": 5}, {"sku": "b", "price": "12.50"}, {"sku": "c", "price": None}, {"sku": "d"}]
SAID: dict[str, Any] = {
    "/a": {"x": 1},
    "/items": ITEMS,
    "/text": "text",
    "/mixed": [1, "b", None],
    "/big": [1e308, 1e308],
    "/many": [1] * 150_000,
}
PART = '[routes.calls.{name}]\nupstream = "up"\npath = "{path}"\n{keys}\n'


async def says(peer: Peer) -> None:
    """Answer with the value in ``SAID``, or with the request's target and body; ``/absent`` gets a 404."""
    while (asked := await peer.read_request())[0]:
        head, body = asked
        target = head.split(b" ")[1].decode()
        if target == "/absent":
            await peer.send(response(b'"gone"', status=b"404 Not Found"))
        else:
            said = SAID.get(target, {"target": target, "body": json.loads(body) if body else None})
            await peer.send(response(json.dumps(said).encode()))


MISSING = {
    "an optional call that fails": ("/absent", "optional = true"),
    "a call that is skipped": ("/a", 'when = "`false`"'),
    "a status that means null": ("/absent", "null_on = [404]"),
}
OF_NULL = (
    *("merge(part, b)", "length(b)", "keys(b)", "values(b)", "map(&x, b)", "contains(b, 'x')", "sort(b)", "sum(b)"),
    *("sort_by(b, &x)", "max_by(b, &x)", "min_by(b, &x)", "avg(b)", "max(b)", "min(b)", "join(',', b)", "abs(b)"),
    *("join(',', [part.x, b])", "reverse(b)", "ceil(b)", "floor(b)", "starts_with(b, 'x')", "ends_with(b, 'x')"),
    *("length(keys(b))", "to_number(b)", "lookup(b, 'x')"),
)


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING)
async def test_a_function_of_a_missing_part_is_null_and_the_answer_is_200(
    missing: tuple[str, str], tmp_path: Path
) -> None:
    path, keys = missing
    shape = ", ".join(f"f{number}: {text}" for number, text in enumerate(OF_NULL))
    answer = f'shape = """{{part: part, {shape}}}"""'
    async with raw_server(says) as upstream:
        config = up(upstream) + route("/r", "/a", answer=answer) + PART.format(name="b", path=path, keys=keys)
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
    assert (reply.status, reply.json["part"]) == (200, {"x": 1})
    assert {text: reply.json[f"f{number}"] for number, text in enumerate(OF_NULL)} == dict.fromkeys(OF_NULL)


ODD: dict[str, tuple[str, str, Any]] = {
    "prices that are texts and numbers": ("/items", "part[?price > `3`].sku", ["a"]),
    "an order of prices": ("/items", "part[?price <= `5` || price >= '12'].sku", ["a", "b"]),
    "lengths": ("/items", "map(&length(price), part)", [None, 5, None, None]),
    "sorted by prices": (
        "/items",
        "{first: part[0].sku, sorted: sort_by(part, &price)}",
        {"first": "a", "sorted": None},
    ),
    "the dearest": ("/items", "[max_by(part, &price), length(part)]", [None, 4]),
    "a sum": ("/mixed", "{sum: sum(part), all: part}", {"sum": None, "all": [1, "b", None]}),
    "a list merged": ("/items", "[merge(part[0], part), merge(part[0], part[2])]", [None, {"sku": "c", "price": None}]),
    "keys of a text": ("/text", "[keys(part), part]", [None, "text"]),
    "a fallback": ("/text", "sum(part) || `0`", 0),
}


@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
async def test_a_value_of_an_unexpected_type_makes_only_its_expression_null(
    case: tuple[str, str, Any], tmp_path: Path
) -> None:
    target, shape, expected = case
    async with raw_server(says) as upstream:
        config = up(upstream) + route("/r", target, answer=f'shape = """{shape}"""')
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
    assert (reply.status, reply.json) == (200, expected)


PLACES: dict[str, tuple[str, str, Any]] = {
    "each": ("/x/{item}", 'each = "keys(a)"', []),
    "when": ("/x", "when = \"contains(a, 'x')\"", None),
    "params": ("/x", 'params = { n = "sum(a)", k = "\'k\'" }', {"target": "/x?k=k", "body": None}),
    "with in a query": ("/x{?n}", 'with = { n = "length(a)" }', {"target": "/x", "body": None}),
    "with in a header": ("/x", 'with = { n = "abs(a)" }\nheaders = { x-n = "{n}" }', {"target": "/x", "body": None}),
    "json": (
        "/x",
        'json = { n = "max(a)", l = "[avg(a), `1`]" }',
        {"target": "/x", "body": {"n": None, "l": [None, 1]}},
    ),
    "the whole json": ("/x", 'json = "merge(a, a)"', {"target": "/x", "body": None}),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_a_null_of_a_function_acts_in_a_call_as_any_other_null(
    place: tuple[str, str, Any], tmp_path: Path
) -> None:
    target, keys, expected = place
    async with raw_server(says) as upstream:
        config = up(upstream) + route("/r", target, call=keys)
        config += PART.format(name="a", path="/absent", keys="null_on = [404]")
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
    assert (reply.status, reply.json["part"]) == (200, expected)


async def test_an_exceeded_limit_is_an_error_and_not_null(tmp_path: Path) -> None:
    config = (
        route("/steps", "/many", answer='shape = "part[?@ > `0`]"')
        + route("/sum", "/big", answer='shape = "[sum(part), avg(part)]"')
        + route("/client", answer='shape = "body.xs[?@ > `0`]"')
    )
    body = json.dumps({"xs": [1] * 90_000}).encode()
    async with raw_server(says) as upstream, running(tmp_path, up(upstream) + config) as program:
        assert (await program.ask("/steps"))[0].status == 502
        assert (await program.ask("/sum"))[0].status == 502
        reply, _ = await program.ask("/client", "POST", [("content-type", "application/json")], body)
    assert (reply.status, 'The member "xs" of the body' in reply.json["detail"]) == (400, True)


async def test_a_constant_is_allowed_instead_of_an_expression(tmp_path: Path) -> None:
    keys = (
        'params = { page = { value = 1 }, ids = { value = [1, "b"] } }\njson = { t = { value = "a.b" }, u = "\'v\'" }'
    )
    async with raw_server(says) as upstream:
        config = up(upstream, 'params = { lang = { value = "en" } }') + route("/r", "/x", call=keys)
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
    assert reply.json["part"] == {"target": "/x?lang=en&page=1&ids=1&ids=b", "body": {"t": "a.b", "u": "v"}}


UP = up(1)


def mistakes(directory: Path, text: str) -> list[str]:
    """Return the lines that ``umbel check`` prints for an invalid configuration; empty if it is valid."""
    before = Path.cwd()
    os.chdir(write(directory, text).parent)
    try:
        load("umbel.toml", checks=CHECKS)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    finally:
        os.chdir(before)
    return []


LITERALS: dict[str, tuple[str, str]] = {
    'params = { page = "1" }': (
        "params.page",
        'for the number write "`1`" (a JMESPath literal) or page = { value = 1 }',
    ),
    'params = { page = "-2.5" }': ("params.page", 'write "`-2.5`" (a JMESPath literal) or page = { value = -2.5 }'),
    "params = { page = 1 }": ("params.page", 'write "`1`" (a JMESPath literal) or { value = 1 }'),
    "json = { on = true }": ("json.on", 'write "`true`" (a JMESPath literal) or { value = true }'),
    'json = { on = "true" }': ("json.on", 'for true write "`true`" (a JMESPath literal) or on = { value = true }'),
    'with = { a = "en" }': ("with.a", 'for the text itself write "\'en\'" or a = { value = "en" }'),
    'form = { a = "New York" }': ("form.a", 'for the text itself write "\'New York\'" or a = { value = "New York" }'),
    'params = { a = "" }': ("params.a", 'it is empty; for the text itself write "\'\'" or a = { value = "" }'),
    'when = "1"': ("when", 'for the number write "`1`" (a JMESPath literal)'),
    "when = true": ("when", 'needs a text, not true; write "`true`" (a JMESPath literal)'),
    'each = "[1, 2]"': (
        "each",
        'it is a list of numbers; for the list write "`[1, 2]`" (a JMESPath literal)',
    ),
    'when = "false"': ("when", '"false" is unknown; for false write "`false`" (a JMESPath literal)'),
    "when = 'query.q == \"x\"'": ("when", '"x" is unknown; for the text itself write "\'x\'"'),
    "when = 'contains(query.q, \"x\")'": ("when", '"x" is unknown; for the text itself write "\'x\'"'),
    "params = { n = 'query.q == null' }": ("params.n", 'for null write "`null`" (a JMESPath literal)'),
    'each = "part["': ("each", "a name, a value or a closing bracket is missing at its end"),
    'json = "{a: query.q"': ("json", "a name, a value or a closing bracket is missing at its end"),
}


@pytest.mark.parametrize(("call", "said"), LITERALS.items(), ids=LITERALS)
def test_the_message_for_a_mistake_in_an_expression_says_what_to_write(
    call: str, said: tuple[str, str], tmp_path: Path
) -> None:
    key, words = said
    (line,) = mistakes(tmp_path, UP + route("/r", keys='query = ["q"]', call=call))
    assert line.startswith(f"umbel.toml:12: routes[0].calls.part.{key}: ")
    assert line.endswith(words)


def test_check_reports_a_part_that_may_be_missing_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = 'shape = "{m: merge(part, b), n: length(c), k: keys(not_null(d, `{}`)), e: keys(e)}"'
    parts = {"b": "optional = true", "c": 'when = "query.q"', "d": "null_on = [404]"}
    config = UP + route("/r", keys='query = ["q"]', answer=shape)
    config += "".join(PART.format(name=name, path="/x", keys=keys) for name, keys in parts.items())
    config += PART.format(name="e", path="/x", keys="optional = true\ndefault = {}")
    monkeypatch.chdir(write(tmp_path, config).parent)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert [line.partition(" gives null if")[0] for line in result.stderr.splitlines()] == [
        "warning: umbel.toml:8: routes[0].answer.shape: length()",
        "warning: umbel.toml:8: routes[0].answer.shape: merge()",
    ]
    assert 'if "b" is null (it is optional and has no default); give "b" a default, or' in result.stderr
    assert 'if "c" is null (when may skip it, and it has no default); give "c" a default, or' in result.stderr


ALL_AT_ONCE = """\
[upstreams.u]
urls = ["http://127.0.0.1:9001"]
timeuot = "1s"
[[routes]]
path = "/r/<id>"
query = ["q"]
combine = "quorum"
banana = 1
[routes.calls.a]
upstream = "u"
path = "/{nope}"
method = "GETT"
timeout = "${UNSET}"
params = { n = "query.z" }
[routes.calls.b]
upstream = "u"
[routes.calls.c]
upstream = "w"
path = 5
when = "a["
[routes.answer]
shape = "merge(a, zzz)"
"""


def test_check_reports_mistakes_of_plans_together_with_all_other_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path, ALL_AT_ONCE).parent)
    monkeypatch.delenv("UNSET", raising=False)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    assert [line.split(":")[1] + line.split(":")[2] for line in result.stderr.splitlines()] == [
        "3 upstreams.u.timeuot",
        "7 routes[0].combine",
        "8 routes[0].banana",
        "11 routes[0].calls.a.path",
        "12 routes[0].calls.a.method",
        "13 routes[0].calls.a.timeout",
        "14 routes[0].calls.a.params.n",
        "15 routes[0].calls.b.path",
        "18 routes[0].calls.c.upstream",
        "19 routes[0].calls.c.path",
        "20 routes[0].calls.c.when",
        "22 routes[0].answer.shape",
    ]
