"""Compiled splits and mirrors: one call per upstream, names and mistakes, and what they mean for caches."""

from __future__ import annotations

import tomllib

import pytest

from tests.support.composition.composing import plan
from umbel.composition.plan import compiler, warnings
from umbel.composition.plan.plan import Plan, request_context
from umbel.config.schema.sections import Config
from umbel.core.errors import ConfigError
from umbel.core.model import Inputs

UPSTREAMS = """
[upstreams.v1]
urls = ["http://127.0.0.1:1"]
headers = { authorization = "Bearer one", x-tenant = "{headers.x_tenant}" }
timeout = "1s"
[upstreams.v2]
urls = ["http://127.0.0.1:2"]
headers = { authorization = "Bearer two" }
params = { version = "'2'" }
timeout = "9s"
max_body = "5KB"
forwarded = false
redirects = "follow"
"""
ROUTE = """
[[routes]]
path = "/r/<id>"
query = ["q"]
{route}
[routes.calls.x]
upstream = "v1"
path = "/x/{{id}}"
{call}
"""


def text(call: str, route: str = "") -> str:
    return UPSTREAMS + ROUTE.format(call=call, route=route)


def made(call: str, route: str = "") -> Plan:
    return plan(text(call, route))


def problems(call: str, route: str = "") -> dict[str, str]:
    config = Config.model_validate(tomllib.loads(text(call, route)))
    return {".".join(map(str, path)): reason for path, reason in compiler.check(config)}


def warned(call: str, route: str = "") -> dict[str, str]:
    config = Config.model_validate(tomllib.loads(text(call, route)))
    return {".".join(map(str, path)): reason for path, reason in warnings.warn(config)}


def test_each_upstream_of_a_split_gets_the_call_with_its_own_rules_and_fields() -> None:
    (call,) = made('split = { v2 = "10%" }').calls
    assert call.split is not None
    v1, v2 = call.split.variants["v1"], call.split.variants["v2"]
    assert (v1.split, v2.split) == (None, None)
    assert [each.rules.upstream for each in (call, v1, v2)] == ["v1", "v1", "v2"]
    assert [each.rules.timeout for each in (v1, v2)] == [1.0, 9.0]
    assert [each.rules.max_body for each in (v1, v2)] == [10**6, 5000]
    assert [each.rules.policies.follows for each in (v1, v2)] == [False, True]
    assert [each.request_template.forwarded for each in (v1, v2)] == [True, False]
    sent = [each.request_template.prepare({"path": {"id": "7"}, "headers": {}}, Inputs()) for each in (v1, v2)]
    assert [each.target for each in sent] == [b"/x/7", b"/x/7?version=2"]
    tokens = [value for each in sent for _, name, value in each.headers if name == b"authorization"]
    assert tokens == [b"Bearer one", b"Bearer two"]


def test_the_needs_of_a_call_are_those_of_all_its_upstreams() -> None:
    upstream = UPSTREAMS.replace("version = \"'2'\"", 'version = "y.version"')
    calls = ROUTE.format(call='split = { v2 = "1%" }', route="") + '[routes.calls.y]\nupstream = "v1"\npath = "/y"\n'
    call, _ = plan(upstream + calls).calls
    assert call.needs == ("y",)
    assert call.split is not None
    assert {each.needs for each in call.split.variants.values()} == {("y",)}


def test_a_mirror_gets_the_call_with_the_fields_of_its_own_upstream() -> None:
    (call,) = made('mirror = { upstream = "v2", share = "5%" }').calls
    assert call.mirror is not None
    assert (call.mirror.share, call.mirror.timeout) == (0.05, 5.0)  # Not 9 s: no longer than the route's deadline.
    sent = call.mirror.call.request_template.prepare({"path": {"id": "7"}, "headers": {}}, Inputs())
    assert (b"authorization", b"authorization", b"Bearer two") in sent.headers
    assert all(name != b"x-tenant" for _, name, _ in sent.headers)
    assert made("").has_mirrors is False
    assert made('mirror = { upstream = "v2", share = "5%" }').has_mirrors is True


def test_no_copy_goes_to_the_upstream_that_gets_the_request() -> None:
    (call,) = made('split = { v2 = "10%" }\nmirror = { upstream = "v2", share = "5%" }').calls
    assert call.split is not None
    assert call.split.variants["v1"].mirror is not None
    assert call.split.variants["v2"].mirror is None


def test_a_mirror_whose_methods_leave_the_call_out_copies_nothing_and_is_warned_of() -> None:
    call = 'method = "POST"\nmirror = { upstream = "v2", share = "5%" }'
    assert made(call).calls[0].mirror is None
    (warning,) = warned(call).items()
    assert warning[0] == "routes.0.calls.x.mirror"
    assert warning[1].startswith("has no effect: the call is a POST; write POST into methods")
    assert warned(call.replace('"5%"', '"5%", methods = ["POST"]')) == {}


def test_split_and_mirror_beside_respond_are_warned_of() -> None:
    keys = 'respond = { json = 1 }\nsplit = { v2 = "10%" }\nmirror = { upstream = "v2", share = "5%" }'
    assert (made(keys).calls[0].split, made(keys).calls[0].mirror) == (None, None)
    found = warned(keys)
    assert found.keys() == {"routes.0.calls.x.split", "routes.0.calls.x.mirror"}
    assert set(found.values()) == {"has no effect beside respond, since nothing is sent"}


@pytest.mark.parametrize(
    ("call", "key", "reason"),
    [
        ('split = { vv2 = "10%" }', "split.vv2", 'there is no upstream "vv2"; did you mean "v2"?'),
        ('split = { other = "10%" }', "split.other", 'there is no upstream "other"; add [upstreams.other]'),
        (
            'mirror = { upstream = "v_2", share = "5%" }',
            "mirror.upstream",
            'there is no upstream "v_2"; did you mean "v2"?',
        ),
        ('split = { v2 = "1%" }\nsplit_key = "client"', "split_key", "write client.ip: of the client only the address"),
        ('split = { v2 = "1%" }\nsplit_key = "client.id"', "split_key", "write client.ip: of the client only the addr"),
        ('split = { v2 = "1%" }\nsplit_key = "cookies"', "split_key", "name one cookie, such as cookies.session"),
        ('split = { v2 = "1%" }\nsplit_key = "body.id"', "split_key", "split_key reads the request only: auth, clien"),
        ('split = { v2 = "1%" }\nsplit_key = "`1`"', "split_key", "split_key reads nothing of the request"),
        ('split = { v2 = "1%" }\nsplit_key = "query.nothing"', "split_key", 'the route declares no query parameter "n'),
    ],
)
def test_a_mistake_in_a_split_or_mirror_is_reported_once_at_its_key(call: str, key: str, reason: str) -> None:
    found = problems(call, 'methods = ["POST"]')
    assert [place for place in found if place.startswith(f"routes.0.calls.x.{key}")] == [f"routes.0.calls.x.{key}"]
    assert found[f"routes.0.calls.x.{key}"].startswith(reason)
    assert len(found) == 1


def test_a_mistake_of_the_call_is_reported_once_whatever_the_number_of_its_upstreams() -> None:
    config = Config.model_validate(tomllib.loads(text('split = { v2 = "1%" }\nheaders = { x-a = "{nothing.here}" }')))
    assert [path for path, _ in compiler.check(config)] == [("routes", 0, "calls", "x", "headers", "x-a")]
    with pytest.raises(ConfigError) as caught:
        compiler.compile_route(config, 0)
    assert len(caught.value.problems) == 1


def test_upstreams_of_a_split_that_send_other_conditions_are_refused() -> None:
    other = UPSTREAMS.replace('"Bearer two"', '"Bearer two", if-none-match = "{headers.if_none_match}"')
    config = Config.model_validate(tomllib.loads(other + ROUTE.format(call='split = { v2 = "1%" }', route="")))
    ((path, reason),) = compiler.check(config)
    assert path == ("routes", 0, "calls", "x", "split", "v2")
    assert "conditions" in reason


@pytest.mark.parametrize(
    ("key", "vary", "private"),
    [
        ("client.ip", (), True),
        ("headers.x_user", ("x-tenant", "x-user"), False),
        ("cookies.session", ("x-tenant", "cookie"), True),
        ("path.id", (), False),
        ("query.q", (), False),
    ],
)
def test_what_the_split_key_reads_decides_how_caches_may_store_the_answer(
    key: str, vary: tuple[str, ...], private: bool
) -> None:
    made_plan = made(f'split = {{ v2 = "10%" }}\nsplit_key = "{key}"')
    assert set(made_plan.vary) == {"x-tenant", *vary}
    assert made_plan.private is private


def test_client_and_cookies_may_be_read_everywhere_in_a_route() -> None:
    call = 'when = "client.ip"\nheaders = { x-ip = "{client.ip}", x-session = "{cookies.session}" }'
    answer = "[routes.answer]\nshape = '{ip: client.ip, sid: cookies.\"__Host-sid\"}'\n"
    made_plan = plan(text(call) + answer)
    inputs = Inputs(cookies={"session": "s", "other": "o"}, client="192.0.2.1")
    context = request_context(made_plan, inputs)
    assert context["client"] == {"ip": "192.0.2.1"}
    assert context["cookies"] == {"session": "s", "__Host-sid": None}
    assert made_plan.private
    assert made_plan.calls[0].rules.pass_status >= {401}  # The session cookie is a credential of the client.


def test_the_address_of_an_unknown_client_is_null_and_no_context_without_a_reader() -> None:
    reading = made('split = { v2 = "1%" }\nsplit_key = "client.ip"')
    assert request_context(reading, Inputs())["client"] == {"ip": None}
    assert request_context(made(""), Inputs(client="192.0.2.1")).keys() == {"path", "query", "headers", "body"}


def test_a_value_for_shared_caches_is_warned_of_if_the_split_reads_the_address() -> None:
    found = warned('split = { v2 = "1%" }\nsplit_key = "client.ip"', 'answer.cache_control = "public, max-age=60"')
    assert "address" in found["routes.0.answer.cache_control"]


@pytest.mark.parametrize("name", ["client", "cookies"])
def test_no_call_has_the_name_of_a_table_of_the_context(name: str) -> None:
    with pytest.raises(ValueError, match=f'cannot have the name "{name}"'):
        plan(text("").replace("routes.calls.x", f"routes.calls.{name}"))


@pytest.mark.parametrize(
    ("key", "context", "found"),
    [
        ("query.q", {"query": {"q": "a"}}, "a"),
        ("query.q", {"query": {"q": 7}}, "7"),
        ("query.q", {"query": {"q": None}}, None),
        ("query.q", {"query": {"q": ""}}, None),
        ("client.ip", {"client": {"ip": None}}, None),
        ("[client.ip, query.q]", {"client": {"ip": "1"}, "query": {"q": None}}, '["1",null]'),
    ],
)
def test_the_key_of_a_request_is_a_text_or_none(key: str, context: dict[str, object], found: str | None) -> None:
    (call,) = made(f'split = {{ v2 = "10%" }}\nsplit_key = "{key}"').calls
    assert call.split is not None
    assert call.split.key_of(context) == found
