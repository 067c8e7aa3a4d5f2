"""Mistakes in routes that are reported beside every kind of mistake in the same route and file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import ROUTE, UPSTREAM, mistakes

# A route with one mistake of each kind that the plan compiler reports.
PLANNED = """\
[routes.answer]
shape = "nope"
forward_headers = { gone = ["x-a"] }
[routes.calls.a]
upstream = "u"
path = "/{id}{?q}"
params = { p = "a[" }
headers = { x-a = "{missing}", via = "me" }
"""
PLANS = {
    'answer.shape: "nope" is unknown',
    'answer.forward_headers.gone: there is no call "gone"',
    'calls.a.path: "id" is an unknown name',
    "calls.a.params.p: not a JMESPath expression: a name, a value or a closing bracket is missing at its end",
    'calls.a.headers.x-a: "missing" is an unknown name',
    'calls.a.headers.via: "via" is written by Umbel, so this value is never sent; remove it',
}
QUERY = 'query = ["q"]\n'

OTHERS: dict[str, tuple[str, str, str]] = {
    # Mistakes in the route, in its call, and elsewhere in the file.
    "an unknown key": ("banana = 1\n", "", ""),
    "a misspelt key": ('deadlin = "1s"\n', "optionel = true\n", ""),
    "a misspelt key of a wrong type": ("", "optionel = 5\n", ""),
    "a missing key": ("", "[routes.calls.b]\n", ""),
    "a call without a path": ("", '[routes.calls.b]\nupstream = "u"\n', ""),
    "a wrong type of a plain key": ('stream = "yes"\n', "timeout = 5\n", ""),
    "a wrong type of an optional call": ("", "optional = 1\n", ""),
    "a condition that is no text": ("", "when = [1]\n", ""),
    "an each that is no text": ("", "each = {}\n", ""),
    "a wrong method": ('methods = ["GETT"]\n', "", ""),
    "a wrong method of a call": ("", 'method = "FETCH"\n', ""),
    "a wrong word": ('combine = "some"\nbody = "xml"\n', 'decode = "yaml"\n', ""),
    "a number out of range": ("", "limit = 0\n", ""),
    "wrong names of headers": ("", 'forward_headers = ["a b", "x-b"]\n', ""),
    "a body of a wrong type": ("", "json = 5\n", ""),
    "an entry of a wrong type": ("", "form = { a = 5 }\n", ""),
    "a constant without its value": ("", "form = { a = { valeu = 5, x = 1 } }\n", ""),
    "a wrong default": ("", "default = 1979-05-27\noptional = true\n", ""),
    "a wrong policy": ("", "retry = { attempts = 99 }\nhedge = {}\n", ""),
    "a broken rule of the route": ('combine = "quorum"\n', "", ""),
    "a broken rule of a call": ("", "limit = 3\ndefault = 1\n", ""),
    "two bodies": ("", 'json = "body"\nform = "body"\n', ""),
    "a variable that is not set": ('deadline = "${NOPE}"\n', 'timeout = "${NOPE}"\n', ""),
    "a variable that is not set in an expression": ("", 'when = "${NOPE}"\njson = { a = "${NOPE}" }\n', ""),
    "a parameter of a wrong type": ("", "", ""),
    "another route that is none": ("", "", '[[routes]]\npath = "x"\n[[routes]]\ncalls = 5\n'),
    "an upstream that is none": ("", "", "[upstreams.bad]\nurls = 5\n"),
    "an upstream of wrong weights": (
        "",
        "",
        '[upstreams.bad]\nurls = [{ url = "http://h", weight = 2 }, "http://h"]\n',
    ),
    "a section of the server": ("", "", "[server]\nmax_body = 5\n[logs]\nkeep = -1\n"),
    "an unknown section": ("", "", "[sever]\nx = 1\n"),
    "a file that is not there": ("", "", ""),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_mistakes_in_a_route_are_reported_beside_other_mistakes(kind: str, tmp_path: Path) -> None:
    of_route, of_call, elsewhere = OTHERS[kind]
    query = QUERY
    if kind == "a parameter of a wrong type":
        query = 'query = { q = { type = "integer" }, r = 5 }\n'
    head = 'include = ["absent.toml"]\n' if kind == "a file that is not there" else ""
    said = mistakes(tmp_path, head + UPSTREAM + ROUTE + query + of_route + PLANNED + of_call + elsewhere)
    reasons = [line.partition(": ")[2] for line in said]
    planned = {reason.removeprefix("routes[0].") for reason in reasons if reason.removeprefix("routes[0].") in PLANS}
    assert planned == PLANS
    others = [reason for reason in reasons if reason.removeprefix("routes[0].") not in PLANS]
    assert others
    made_up = ("an unknown name", "is unknown", "placeholder", "there is no")
    assert not [reason for reason in others if any(words in reason for words in made_up)]


KNOWN = """\
[routes.calls.a]
upstream = "u"
path = "/{id}/{q}/{v}/{item}"
each = "query.q"
with = { v = "path.id" }
params = { b = "b.x", q = "query.q" }
[routes.calls.b]
upstream = "u"
path = "/"
[routes.answer]
shape = "{a: a, b: b}"
forward_headers = { b = ["x-a"] }
"""
HEAD = '[[routes]]\npath = "/r/<id>"\nquery = ["q"]\n'

CONSEQUENCES = {
    "the path of the route": ('path = "/r/<id>"', "path = 5"),
    "the path of the route without a slash": ('path = "/r/<id>"', 'path = "r/<id>"'),
    "the query of the route": ('query = ["q"]', "query = 5"),
    "a name of the query": ('query = ["q"]', "query = [5]"),
    "a name of the query that a variable gives": ('query = ["q"]', 'query = ["${NOPE}"]'),
    "the table of a parameter": ('query = ["q"]', "query = { q = 5 }"),
    "the list of an each": ('each = "query.q"', "each = 5"),
    "the names of with": ('with = { v = "path.id" }', "with = 5"),
    "a name of with": ('with = { v = "path.id" }', 'with = { "v-w" = "path.id" }'),
    "a value of with": ('with = { v = "path.id" }', "with = { v = [1] }"),
    "a call as a whole": ('[routes.calls.b]\nupstream = "u"\npath = "/"\n', "[routes.calls]\nb = 5\n"),
    "the name of a call": ("[routes.calls.b]", "[routes.calls.b-c]"),
    "the name of a call that is a word of the context": ("[routes.calls.b]", "[routes.calls.headers]"),
    "the upstream of a call": ('[routes.calls.b]\nupstream = "u"', "[routes.calls.b]\nupstream = 5"),
    "no upstream of a call": ('[routes.calls.b]\nupstream = "u"', "[routes.calls.b]"),
    "the path of a call": ('path = "/{id}/{q}/{v}/{item}"', "path = 5"),
    "the upstream": (UPSTREAM, "[upstreams.u]\nurls = 5\n"),
    "the urls of the upstream": (UPSTREAM, '[upstreams.u]\nurls = ["ftp://h", 5]\n'),
    "the name of the upstream": (
        UPSTREAM,
        '[upstreams."u v"]\nurls = ["http://h"]\n[upstreams.u]\nurls = ["http://h"]\n',
    ),
}


@pytest.mark.parametrize("kind", CONSEQUENCES)
def test_a_consequence_of_a_mistake_is_not_reported(kind: str, tmp_path: Path) -> None:
    good = UPSTREAM + HEAD + KNOWN
    assert mistakes(tmp_path, good) == []
    before, after = CONSEQUENCES[kind]
    assert good.count(before) == 1
    said = mistakes(tmp_path, good.replace(before, after))
    assert len(said) == (2 if "5]" in after and "ftp" in after else 1), said


def test_wrong_header_settings_of_an_upstream_cause_no_mistake_in_a_call(tmp_path: Path) -> None:
    call = 'calls.c = { upstream = "u", path = "/", headers = { x-forwarded-for = "1", via = "2" } }\n'
    said = mistakes(tmp_path, UPSTREAM + 'forwarded = "no"\n' + ROUTE + call)
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [
        "upstreams.u.forwarded",
        "routes[0].calls.c.headers.via",
    ]


def test_a_route_with_an_invalid_path_is_no_duplicate(tmp_path: Path) -> None:
    call = 'calls.c = { upstream = "u", path = "/" }\n'
    routes = '[[routes]]\npath = "/"\n' + call + "[[routes]]\npath = 5\n" + call + '[[routes]]\npath = "x"\n' + call
    assert [line.partition(": ")[0] for line in mistakes(tmp_path, UPSTREAM + routes)] == [
        "umbel.toml:7",
        "umbel.toml:10",
    ]


def test_several_wrong_items_of_a_list_hide_no_other_mistake(tmp_path: Path) -> None:
    """Recovery must not remove the tables around the items one by one until no route is left."""
    call = 'calls.c = { upstream = "u", path = "/{id}" }\n'
    said = mistakes(tmp_path, UPSTREAM + '[[routes]]\npath = "/"\nmethods = [false, false, false]\n' + call)
    assert [line.split(": ")[1] for line in said] == [
        "routes[0].methods[0]",
        "routes[0].methods[1]",
        "routes[0].methods[2]",
        "routes[0].calls.c.path",
    ]
