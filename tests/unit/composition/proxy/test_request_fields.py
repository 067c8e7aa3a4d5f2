"""The fields of a request that is passed on: what is dropped, what the configuration replaces, hostile names."""

from __future__ import annotations

import pytest

from .plans import mistakes, plan

Pairs = list[tuple[bytes, bytes]]


def sent(found: object, given: Pairs, **options: object) -> Pairs:
    made = found.request_fields(given, **options)  # type: ignore[attr-defined]
    assert all(name.lower() == lower for name, lower, _ in made)
    return [(name, value) for name, _, value in made]


@pytest.mark.parametrize(
    "name",
    [
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"),
        *(b"proxy-authorization", b"proxy-connection", b"proxy-foo", b"proxy", b"expect", b"host"),
        *(b"via", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
        *(b"traceparent", b"tracestate", b"x-forwarded-client-cert", b"x-envoy-expected-rq-timeout-ms"),
        *(b"X-Forwarded-Client-Cert", b"x_forwarded_client_cert", b"X_Forwarded-For", b"Proxy_Authorization"),
    ],
)
def test_a_field_of_the_connection_or_of_the_gateway_is_dropped(name: bytes) -> None:
    assert sent(plan(), [(b"a", b"1"), (name, b"x"), (b"b", b"2")]) == [(b"a", b"1"), (b"b", b"2")]


@pytest.mark.parametrize(
    "name",
    [
        *(b"authorization", b"accept", b"accept-encoding", b"user-agent", b"range", b"if-range", b"if-none-match"),
        *(b"content-type", b"content-encoding", b"content-length", b"sec-websocket-key", b"origin", b"priority"),
        *(b"x-forwarded-port", b"forwarded", b"x-real-ip", b"x-envoy-upstream-rq-timeout-ms", b"prefer"),
    ],
)
def test_any_other_field_is_passed_on(name: bytes) -> None:
    assert sent(plan(), [(name, b"x")]) == [(name, b"x")]


def test_repeated_fields_stay_in_their_order_and_no_field_is_added() -> None:
    given = [(b"accept", b"b"), (b"X-A", b"1"), (b"accept", b"a"), (b"x-a", b""), (b"x-a", b"\xff\x80")]
    assert sent(plan(), given) == given
    assert sent(plan(), []) == []


def test_a_field_that_connection_names_is_dropped_but_not_the_length_or_the_host() -> None:
    given = [
        (b"Connection", b"close, X-Secret , content-length"),
        (b"x-secret", b"1"),
        (b"content-length", b"5"),
        (b"connection", b"Cookie;, host, x-b"),
        (b"host", b"a.example"),
        (b"x-b", b"1"),
        (b"x-c", b"1"),
    ]
    assert sent(plan(preserve_host=True), given) == [
        (b"content-length", b"5"),
        (b"host", b"a.example"),
        (b"x-c", b"1"),
    ]


def test_the_cookies_of_several_fields_become_one_field() -> None:
    given = [(b"cookie", b"a=1"), (b"accept", b"x"), (b"cookie", b"b=2; c=3")]
    assert sent(plan(), given) == [(b"accept", b"x"), (b"cookie", b"a=1; b=2; c=3")]


def test_an_upstream_without_forwarded_gets_no_word_about_the_client() -> None:
    upstreams = {"blind": {"urls": ["http://b"], "forwarded": False, "deadline_header": "x-left"}}
    names = (b"x-forwarded-for", b"x-forwarded-port", b"forwarded", b"x-real-ip", b"remote-addr", b"x-left", b"x-a")
    found = plan(route={"upstreams": upstreams}, upstream="blind")
    assert sent(found, [(name, b"1") for name in names]) == [(b"x-a", b"1")]


def test_the_fields_of_the_upstream_replace_those_of_the_client() -> None:
    upstreams = {
        "keyed": {"urls": ["http://k"], "headers": {"X-Key": "k", "authorization": "Bearer {headers.x_token}"}}
    }
    found = plan(route={"upstreams": upstreams}, fallback=["keyed"])
    given = [(b"x-key", b"mine"), (b"X-KEY", b"mine"), (b"authorization", b"Basic x"), (b"a", b"1")]
    assert sent(found, given) == given
    context = {"headers": {"x_token": "t"}}
    assert sent(found, given, upstream="keyed", context=context) == [
        (b"a", b"1"),
        (b"x-key", b"k"),
        (b"authorization", b"Bearer t"),
    ]


def test_a_client_cannot_send_a_field_whose_template_gives_no_value() -> None:
    upstreams = {"keyed": {"urls": ["http://k"], "headers": {"x-user": "{headers.x_login}"}}}
    rules = {"set": {"x-tenant": "{headers.x_tenant_of}"}}
    found = plan(route={"upstreams": upstreams}, upstream="keyed", request_headers=rules)
    left_out: list[tuple[str, str]] = []
    given = [(b"x-user", b"root"), (b"x-tenant", b"1")]
    context = {"headers": {"x_login": None, "x_tenant_of": "a\r\nb"}}
    assert sent(found, given, context=context, left_out=lambda *what: left_out.append(what)) == []
    assert [name for name, _ in left_out] == ["x-tenant"]


def test_rules_remove_then_set_then_add() -> None:
    rules = {"remove": ["X-A", "cookie"], "set": {"x-b": "new"}, "add": {"x-b": "more", "x-a": "mine"}}
    given = [(b"x-a", b"1"), (b"cookie", b"c=1"), (b"X-B", b"1"), (b"x-c", b"1"), (b"x-b", b"2")]
    assert sent(plan(request_headers=rules), given) == [
        (b"x-c", b"1"),
        (b"x-b", b"new"),
        (b"x-b", b"more"),
        (b"x-a", b"mine"),
    ]


def test_templates_read_the_path_the_query_and_the_fields_of_the_request() -> None:
    rules = {"set": {"x-who": "{id}/{query.q}/{headers.x_a}"}}
    found = plan("/<id>", route={"query": ["q"]}, request_headers=rules)
    assert found.reads_request
    assert found.vary == ("x-a",)
    context = {"path": {"id": "7"}, "query": {"q": "s"}, "headers": {"x_a": "1"}}
    assert sent(found, [], context=context) == [(b"x-who", b"7/s/1")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("via", '"via" is written by Umbel'),
        ("x-request-id", '"x-request-id" is written by Umbel'),
        ("traceparent", '"traceparent" is written by Umbel'),
        ("x-forwarded-for", "or set forwarded = false at the upstream"),
        ("x-envoy-expected-rq-timeout-ms", "or give the upstream another deadline_header"),
        ("expect", '"expect" belongs to one connection'),
        ("proxy-authorization", '"proxy-authorization" belongs to one connection'),
        ("sec-websocket-key", '"sec-websocket-key" belongs to the handshake of a WebSocket'),
    ],
)
@pytest.mark.parametrize("key", ["set", "add", "remove"])
def test_a_rule_for_a_field_that_umbel_writes_is_a_mistake(key: str, name: str, said: str) -> None:
    rules = {key: [name] if key == "remove" else {name: "x"}}
    ((at, reason),) = mistakes(request_headers=rules).items()
    assert at == f"routes.0.proxy.request_headers.{key}.{'0' if key == 'remove' else name}"
    assert said in reason


def test_the_codings_that_the_client_accepts_can_be_changed() -> None:
    assert mistakes(request_headers={"remove": ["accept-encoding", "range"]}) == {}


def test_a_template_that_reads_the_body_is_a_mistake() -> None:
    found = mistakes(request_headers={"set": {"x-a": "{body.a}"}})
    assert found == {"routes.0.proxy": "a template of a proxy route cannot read the body, which is not decoded"}


def test_many_fields_take_linear_time() -> None:
    given = [(b"x-%d" % place, b"1") for place in range(20_000)]
    named = (b"connection", b", ".join(b"x-%d" % place for place in range(0, 20_000, 2)))
    assert len(plan(request_headers={"remove": ["x-1"]}).request_fields([*given, named])) == 9_999
