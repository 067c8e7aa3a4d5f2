"""Mistakes that the plan compiler reports, each with its key."""

from __future__ import annotations

import pytest

from tests.support.composition.composing import config, plan
from umbel.composition.plan import route_groups
from umbel.composition.plan.compiler import check, compile_routes
from umbel.composition.plan.plan import find_cycle
from umbel.composition.request.request_template import RequestTemplate
from umbel.config.schema.sections import Config
from umbel.core.model import Inputs, Json

CALL = '[routes.calls.a]\nupstream = "u"\npath = "/a"\n'


def problems(text: str) -> list[str]:
    if "[[routes]]" not in text:
        text = f'[[routes]]\npath = "/r/<id>"\nquery = ["limit"]\n{text}'
    return [f"{'.'.join(map(str, path))}: {reason}" for path, reason in check(config(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL.replace('"u"', '"w"'), 'calls.a.upstream: there is no upstream "w"'),
        (CALL.replace("/a", "/{idd}"), 'calls.a.path: "idd" is an unknown name; did you mean "id"?'),
        (
            CALL.replace("/a", "/{query.limt}"),
            'calls.a.path: the route declares no query parameter "limt"; did you mean "limit"?',
        ),
        (CALL.replace("/a", "/{path.ix}"), 'calls.a.path: the route has no "ix" in its path'),
        (CALL.replace("/a", "/{item}"), 'calls.a.path: "item" is known only in a call with each'),
        (CALL.replace("/a", "/{a.x}"), 'calls.a.path: "a" names the call itself'),
        (
            CALL.replace("/a", "/{id}") + 'with = { id = "body.x" }\n',
            '"id" has two meanings, a name in with and a route parameter',
        ),
        (CALL + 'when = "id == `1`"\n', 'calls.a.when: "id" is unknown in an expression; write path.id'),
        (CALL + 'when = "nobody.x"\n', 'calls.a.when: "nobody" is unknown'),
        (CALL + 'when = "a["\n', "calls.a.when: not a JMESPath expression"),
        (CALL + 'each = "@"\n', "calls.a.each: it reads the whole context"),
        (CALL + 'params = { x = "headers" }\n', "calls.a.params.x: name one header"),
        (CALL + 'headers = { x-a = "{?limit}" }\n', "calls.a.headers.x-a: {?…} makes a query"),
        (CALL + '[routes.answer]\nshape = "b"\n', 'answer.shape: "b" is unknown'),
        (CALL + '[routes.answer]\nshape = "item"\n', 'answer.shape: "item" is known only'),
        (
            CALL + '[routes.answer]\nforward_headers = { b = ["x-a"] }\n',
            'answer.forward_headers.b: there is no call "b"',
        ),
        (
            CALL + '[routes.answer]\nforward_headers = { a = ["ETag"] }\n',
            '"etag" of an answer is written by Umbel; remove it',
        ),
        (CALL + '[routes.answer]\nheaders = { vary = "x" }\n', '"vary" of an answer is written by Umbel; remove it'),
        (CALL + '[routes.answer]\nstatus = 204\nshape = "a"\n', "status 204 has no body"),
        (CALL + 'each = "path.id"\n[routes.answer]\nforward_headers = { a = ["x"] }\n', "has many responses"),
    ],
)
def test_mistakes_of_a_call_and_of_an_answer(text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('path = "/r/<"', "is not a valid route"),
        ('path = "/r/<nope:id>"', "is not a valid route"),
        ('path = "/r"\ncombine = "quorum"\nquorum = 2', "the quorum is more than the number of calls that count, 1"),
        ('path = "/r/<x>/<x>"', "is not a valid route"),
        ('path = "/r/<int(bogus=1):x>"', "is not a valid route"),
        ('path = "/r"\nmethods = ["GET"]', "but a GET request has none"),
    ],
)
def test_mistakes_of_a_route(head: str, expected: str) -> None:
    call = CALL + ('json = "body"\n' if "methods" in head else "")
    assert any(expected in problem for problem in problems(f"[[routes]]\n{head}\n{call}"))


def test_a_list_of_the_query_in_a_path_segment_is_a_mistake() -> None:
    route = '[[routes]]\npath = "/r"\nquery = { ids = { type = "list[int]" } }\n'
    for name in ("ids", "query.ids"):
        (problem,) = problems(route + CALL.replace("/a", f"/{{{name}}}"))
        assert f'"{name}" is a list, and a path segment takes one value' in problem
    assert problems(route + CALL.replace("/a", "/{?ids}")) == []


def test_a_cycle_is_reported_with_all_of_its_calls() -> None:
    text = CALL.replace("/a", "/{b.x}") + CALL.replace("calls.a", "calls.b").replace("/a", "/{c.x}")
    text += CALL.replace("calls.a", "calls.c").replace("/a", "/{a.x}")
    [problem] = problems(text)
    assert "a → b → c → a" in problem


def test_a_duplicate_route_names_the_first_one() -> None:
    text = f'[[routes]]\npath = "/r/<a>"\n{CALL}[[routes]]\npath = "/r/<b>"\n{CALL}'
    [problem] = problems(text)
    assert "routes.1.path: GET /r/<b> is a route already, at routes.0.path" in problem
    other = text.replace('path = "/r/<b>"', 'path = "/r/<b>"\nmethods = ["DELETE"]')
    assert problems(other) == []


def test_a_duplicate_route_is_reported_beside_another_mistake() -> None:
    text = f'[[routes]]\npath = "/r/<a>"\n{CALL.replace("/a", "/{z}")}[[routes]]\npath = "/r/<b>"\n{CALL}'
    assert len(problems(text)) == 2


def test_every_unknown_name_of_an_expression_is_reported() -> None:
    [problem] = problems(CALL + '[routes.answer]\nshape = "{q: query.zz, p: path.zz}"\n')
    assert '"zz" in its path' in problem
    assert 'query parameter "zz"' in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('params = { x = "zip(path.id)" }', "zip() takes 2 arguments, not 1"),
        ('params = { x = "lenght(path.id)" }', "no function lenght(); did you mean length()?"),
        ('params = { x = "headers.X_Y" }', "in lower case: headers.x_y"),
        ('headers = { x-a = "{body}" }', "is a table; write one of its fields"),
    ],
)
def test_names_that_would_always_give_null_are_mistakes(text: str, expected: str) -> None:
    assert expected in problems(CALL + text + "\n")[0]


def sent_by(request_template: RequestTemplate, inputs: Inputs) -> dict[bytes, bytes]:
    return {name: value for name, _, value in request_template.prepare({}, inputs).fields}


async def test_a_forwarded_header_replaces_that_of_the_upstream() -> None:
    made = plan(
        '[upstreams.u]\nurls = ["http://x"]\nheaders = { authorization = "Bearer ours" }\n'
        '[[routes]]\npath = "/r"\n' + CALL + 'forward_headers = ["authorization"]\n'
    )
    request_template = made.calls[0].request_template
    assert sent_by(request_template, Inputs(headers={"authorization": "theirs"}))[b"authorization"] == b"theirs"
    assert sent_by(request_template, Inputs())[b"authorization"] == b"Bearer ours"


def test_all_mistakes_are_reported_at_once() -> None:
    text = CALL.replace("/a", "/{idd}") + 'when = "nobody"\n' + '[routes.answer]\nshape = "x"\n'
    assert len(problems(text)) == 3


def test_a_plan_holds_dependencies_headers_and_vary() -> None:
    made = plan(
        CALL
        + 'forward_headers = ["Authorization"]\nforward_cookies = ["s"]\n'
        + 'params = { t = "headers.x_tenant" }\njson = "body"\n'
    )
    assert made.vary == ("x-tenant", "authorization", "cookie")
    assert made.private
    assert made.methods == ("POST",)
    assert made.uses_body
    assert made.calls[0].request_template.method == "POST"
    assert 401 in made.calls[0].rules.pass_status


def test_a_calls_own_headers_and_params_replace_the_upstreams() -> None:
    made = plan(
        '[upstreams.u]\nurls = ["http://x"]\nheaders = { a = "1", b = "2" }\nparams = { p = "`1`" }\n'
        '[[routes]]\npath = "/r/<id>"\n' + CALL + 'headers = { b = "3" }\nparams = { q = "`2`" }\n'
    )
    request_template = made.calls[0].request_template
    sent = sent_by(request_template, Inputs())
    assert (sent[b"a"], sent[b"b"]) == (b"1", b"3")
    assert [param.name for param in request_template.params] == ["p", "q"]


@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        ({"a": ["b"], "b": []}, ()),
        ({"a": ["b"], "b": ["a"]}, ("a", "b", "a")),
        ({"a": ["b", "c"], "b": ["c"], "c": []}, ()),
        ({"x": ["a"], "a": ["b"], "b": ["a"]}, ("a", "b", "a")),
    ],
)
def test_find_cycle_returns_the_first_cycle(needs: dict[str, list[str]], cycle: tuple[str, ...]) -> None:
    assert find_cycle(needs) == cycle


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        ('path = "/{body.a}"\nparams = { b = "body.b.c[0]" }\n', {"a", "b"}),
        ('path = "/"\nwhen = "body.a || body.\\"b c\\""\n', {"a", "b c"}),
        ('path = "/"\nforward_body = true\n', set()),
        ('path = "/"\njson = "body"\n', None),
        ('path = "/"\nparams = { n = "length(keys(body))", b = "body.b" }\n', None),
        ('path = "/"\njson = "body.*"\n', None),
    ],
)
def test_a_plan_holds_the_body_members_that_are_read(keys: str, read: set[str] | None) -> None:
    made = plan(f'[[routes]]\npath = "/r"\n[routes.calls.a]\nupstream = "u"\n{keys}')
    assert made.body_fields == read


def test_every_unknown_name_of_a_template_is_reported() -> None:
    made = config('[[routes]]\npath = "/r"\n[routes.calls.a]\nupstream = "u"\npath = "/{x}/{y}{?x,z}"\n')
    ((path, reason),) = check(made)
    assert path == ("routes", 0, "calls", "a", "path")
    assert reason == '"x" is an unknown name; and "y" is an unknown name; and "z" is an unknown name'


def test_an_invalid_path_makes_no_path_parameter_unknown() -> None:
    made = config('[[routes]]\npath = "/<foo:id>"\n[routes.calls.a]\nupstream = "u"\npath = "/{id}{?q}"\n')
    assert [path for path, _ in check(made)] == [("routes", 0, "path")]


@pytest.mark.parametrize(
    ("call", "bound", "context"),
    [
        ('headers = { x-user = "{auth.sub}" }\n', {}, {}),
        ('headers = { x-user = "{auth.claims.user}" }\n', {}, {}),
        ('with.user = "auth.sub"\nheaders = { x-user = "{user}" }\n', {"user": " ada"}, {}),
        ('with.user = "join(`\\"\\"`, [auth.sub])"\nheaders = { x-user = "{user}" }\n', {"user": " ada"}, {}),
        ('each = "[auth.sub]"\nheaders = { x-user = "{item}" }\n', {}, {"item": " ada"}),
    ],
)
def test_values_made_of_auth_never_lose_whitespace_in_a_field(
    call: str, bound: dict[str, Json], context: dict[str, Json]
) -> None:
    machines = '[auth.machines]\nkind = "mtls"\nallow = ["dns:a"]\n'
    made = plan(f'{machines}[[routes]]\npath = "/r"\nauth = "machines"\n{CALL}{call}')
    values: dict[str, Json] = {"auth": {"sub": " ada", "claims": {"user": "ada "}}, **context}
    (field,) = made.calls[0].request_template.headers
    assert field.text.expand(values, bound) is None
    values["auth"] = {"sub": "ada", "claims": {"user": "ada"}}
    fine = dict.fromkeys(bound, "ada"), {**values, **dict.fromkeys(context, "ada")}
    assert field.text.expand(fine[1], fine[0]) == b"ada"


def test_a_value_of_a_call_is_sent_without_outer_whitespace() -> None:
    made = plan(f'[[routes]]\npath = "/r"\n{CALL}[routes.answer]\nheaders = {{ x-title = "{{a.title}}" }}\n')
    ((_, text),) = made.answer_headers
    assert text.expand({"a": {"title": "Big sale "}}, {}) == b"Big sale"


def test_the_routes_beside_a_route_are_looked_up_and_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search through all routes for each route took minutes for 10,000 routes."""
    read: list[str] = []
    pattern_of = route_groups.pattern_of
    monkeypatch.setattr(route_groups, "pattern_of", lambda path: (read.append(path), pattern_of(path))[1])
    routes = [{"path": f"/r{number}/<item>", "respond": {"text": "x"}} for number in range(100)]
    config = Config.model_validate({"routes": routes})
    assert not list(check(config))
    assert len(compile_routes(config)) == len(routes)
    assert len(read) <= 4 * len(routes)
