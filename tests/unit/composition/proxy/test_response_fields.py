"""The fields of a response that is passed on: hop-by-hop fields, rules, Location and cookies, with hostile values."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.composition.proxy.proxy_plan import ProxyPlan

from .plans import fields, mistakes, plan

HERE = (b"/a", {"rest": "a"})


def received(found: ProxyPlan, *pairs: tuple[str, str], **options: Any) -> list[tuple[str, str]]:
    made = found.response_fields(fields(*pairs), *HERE, **options)
    return [(name.decode(), value.decode("latin-1")) for name, value in made]


def location(found: ProxyPlan, value: str, target: str, rest: str = "", **options: Any) -> str:
    ((_, made),) = found.response_fields(fields(("Location", value)), target.encode(), {"rest": rest}, **options)
    return made.decode("latin-1")


def cookie(value: str, **rewrite: dict[str, str]) -> str:
    return received(plan(rewrite=rewrite), ("Set-Cookie", value))[0][1]


def test_end_to_end_fields_stay_as_they_are_with_names_in_lower_case() -> None:
    pairs = [("Server", "x"), ("Set-Cookie", "a=1"), ("X-A", ""), ("Set-Cookie", "b=\xff"), ("Via", "1.1 x")]
    pairs += [("ETag", '"1"'), ("Vary", "Accept"), ("Content-Length", "5"), ("Proxy-Status", "x; error=a")]
    assert received(plan(), *pairs) == [(name.lower(), value) for name, value in pairs]


def test_hop_by_hop_fields_and_those_that_connection_names_are_dropped() -> None:
    pairs = [("Connection", "X-Hop, close"), ("x-hop", "1"), ("Keep-Alive", "timeout=5"), ("Upgrade", "h2c")]
    pairs += [("Proxy-Authenticate", "Basic"), ("Trailer", "x"), ("TE", "x"), ("X-Kept", "1")]
    assert received(plan(), *pairs) == [("x-kept", "1")]


def test_a_length_beside_a_transfer_coding_is_dropped() -> None:
    assert received(plan(), ("Content-Length", "5"), ("Transfer-Encoding", "chunked")) == []
    assert received(plan(), ("Connection", "content-length"), ("Content-Length", "5")) == [("content-length", "5")]


def test_rules_remove_then_set_then_add() -> None:
    rules = {"remove": ["Server"], "set": {"cache-control": "no-store"}, "add": {"set-cookie": "seen=1"}}
    found = plan(response_headers=rules)
    pairs = [("Server", "x"), ("Cache-Control", "public"), ("cache-control", "max-age=1"), ("Set-Cookie", "a=1")]
    assert received(found, *pairs) == [("set-cookie", "a=1"), ("cache-control", "no-store"), ("set-cookie", "seen=1")]
    assert found.trailer_fields(fields(("server", "x"), ("x-sum", "1"), ("connection", "a"))) == [(b"x-sum", b"1")]


def test_vary_names_the_fields_by_which_the_route_was_chosen() -> None:
    rules = {"set": {"x-to": "{headers.x_a}"}}
    found = plan(route={"match": "headers.x_beta"}, response_headers=rules)
    context = {"headers": {"x_a": "1"}}
    assert received(found, ("Vary", "Accept"), context=context) == [
        ("vary", "Accept"),
        ("vary", "X-A, X-Beta"),
        ("x-to", "1"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("content-encoding", '"content-encoding" belongs to the content of the response'),
        ("proxy-authenticate", '"proxy-authenticate" belongs to one connection'),
        ("sec-websocket-accept", '"sec-websocket-accept" belongs to the handshake'),
    ],
)
def test_a_rule_for_a_field_of_the_message_itself_is_a_mistake(name: str, said: str) -> None:
    ((at, reason),) = mistakes(response_headers={"remove": [name]}).items()
    assert at == "routes.0.proxy.response_headers.remove.0"
    assert reason.startswith(said)


SAME = {
    "http://up.internal:9001/x?y#z": "/x?y#z",
    "HTTP://UP.Internal:9001/x": "/x",
    "//up.internal:9001/x": "/x",
    "http://up.internal:9001": "/",
    "http://up.internal:9001?q=//evil.example": "/?q=//evil.example",
    "http://up.internal:9001#f": "/#f",
    "http://up.internal:9001//evil.example/x": "/evil.example/x",
    "http://up.internal:9001///evil.example": "/evil.example",
    "https://up.internal:9001/x": "/x",
    "/x": "/x",
    "/": "/",
}
FOREIGN = (
    "http://evil.example/x",
    "http://up.internal/x",
    "http://up.internal:9002/x",
    "http://up.internal:9001.evil.example/x",
    "http://up.internal:9001@evil.example/x",
    "http://a@up.internal:9001/x",
    "http://xup.internal:9001/x",
    "//evil.example/x",
    "ftp://up.internal:9001/x",
    "javascript:alert(1)",
    "mailto:a@b",
    "x/y",
    "../x",
    "?x",
    "#x",
    "",
    "http:///x",
    "http:up.internal:9001/x",
    "http:/up.internal:9001/x",
    "http://up.internal:9001\\@evil.example/x",
    "http://up.internal:9001/\\evil.example",
    "http://up.internal:9001/\t/evil.example",
    "http://up.internal:9001/ /evil.example",
    "http://up.internal:9001/\xe9",
    "http:\\\\up.internal:9001/x",
    " http://up.internal:9001/x",
    "http://up.internal:9001/a/../b",
    "http://up.internal:9001/%2e%2E/b",
    "http://up.internal:9001/..;/b",
    "http://[up.internal:9001/x",
)


@pytest.mark.parametrize("value", SAME)
def test_a_location_of_the_upstream_itself_becomes_a_path(value: str) -> None:
    assert location(plan(), value, "/a") == SAME[value]


@pytest.mark.parametrize("value", FOREIGN)
def test_any_other_location_stays_as_it_is(value: str) -> None:
    assert location(plan(), value, "/a") == value
    assert location(plan("/files/<path:rest>", path="/v2/{+rest}"), value, "/files/a", "a") == value


@pytest.mark.parametrize("value", SAME)
def test_without_rewrite_a_location_stays_as_it_is(value: str) -> None:
    assert location(plan(rewrite={"location": False}), value, "/a") == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://based.internal/v1/x", "/x"),
        ("http://based.internal:80/v1", "/"),
        ("https://based.internal:443/v1/x", "/x"),
        ("http://10.0.0.7:8080/v1/x", "/x"),
        ("https://api.internal/v1/x", "/x"),
        ("http://api.internal:8080/v1/x", "http://api.internal:8080/v1/x"),
        ("http://based.internal/v10/x", "http://based.internal/v10/x"),
        ("http://based.internal/x", "http://based.internal/x"),
        ("/v1/x", "/x"),
        ("/v1//evil.example", "/evil.example"),
        ("/login", "/login"),
    ],
)
def test_the_path_of_the_base_url_is_removed(value: str, said: str) -> None:
    assert location(plan(upstream="based"), value, "/a") == said


def test_the_names_of_the_upstream_that_has_answered_count() -> None:
    found = plan(fallback=["tls"])
    assert location(found, "https://tls.internal/x", "/a", upstream="tls") == "/x"
    assert location(found, "https://tls.internal/x", "/a") == "https://tls.internal/x"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://up.internal:9001/v2/x?y", "/t/7/files/x?y"),
        ("http://up.internal:9001/v2", "/t/7/files"),
        ("http://up.internal:9001/v2/", "/t/7/files/"),
        ("http://up.internal:9001/v2//evil", "/t/7/files//evil"),
        ("http://up.internal:9001/v22/x", "/v22/x"),
        ("http://up.internal:9001/login", "/login"),
        ("/v2/x", "/t/7/files/x"),
        ("/t/7/files/x", "/t/7/files/x"),
        ("/login", "/login"),
    ],
)
def test_the_prefix_of_the_template_becomes_the_prefix_of_the_client(value: str, said: str) -> None:
    found = plan("/t/<tenant>/files/<path:rest>", path="/v2/{+rest}")
    path = {"tenant": "7", "rest": "a/b c"}
    ((_, made),) = found.response_fields(fields(("Location", value)), b"/t/7/files/a/b%20c?q", path)
    assert made.decode() == said


def test_a_template_without_a_prefix_gives_the_path_of_the_client() -> None:
    found = plan("/app/<path:rest>", path="/{+rest}")
    assert location(found, "/login", "/app/a", "a") == "/app/login"
    assert location(found, "/app/login", "/app/a", "a") == "/app/login"
    assert location(found, "http://up.internal:9001/app/x", "/app/a", "a") == "/app/app/x"


def test_a_template_that_changes_more_than_the_beginning_leaves_the_path() -> None:
    found = plan("/users/<id>", path="/u/{id}/page")
    ((_, made),) = found.response_fields(fields(("Location", "http://up.internal:9001/u/8")), b"/users/7", {"id": "7"})
    assert made == b"/u/8"


DOMAINS = {"UP.internal": "shop.example", "gone.internal": ""}
PATHS = {"/": "/app", "/v2": "/files", "/v2/deep": "/"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a=1; Domain=up.internal; Path=/v2", "a=1; Domain=shop.example; Path=/files"),
        ("a=1;dOMAIN = .UP.Internal ;PATH=/v2/x", "a=1;dOMAIN =shop.example;PATH=/files/x"),
        ("a=1; path=/v2/deep/x; domain=GONE.internal; Secure", "a=1; path=/x; Secure"),
        ("a=1; Path=/", "a=1; Path=/app"),
        ("a=1; Path=/v22", "a=1; Path=/app/v22"),
        ("a=1; Domain=up.internal; Domain=up.internal", "a=1; Domain=shop.example; Domain=shop.example"),
        ("a=1; Domain=other.example; HttpOnly; Expires=x", "a=1; Domain=other.example; HttpOnly; Expires=x"),
        ("a=1; Domain; Path; Domain=; ; =x", "a=1; Domain; Path; Domain=; ; =x"),
        ("Domain=up.internal", "Domain=up.internal"),
        ("", ""),
        ("a=\xff; Comment=Domain=up.internal; Path=v2", "a=\xff; Comment=Domain=up.internal; Path=v2"),
    ],
)
def test_domain_and_path_of_a_cookie_are_rewritten_in_any_case_and_order(value: str, said: str) -> None:
    assert cookie(value, cookie_domain=DOMAINS, cookie_path=PATHS) == said


def test_without_tables_a_cookie_stays_as_it_is() -> None:
    assert cookie("a=1; Domain=up.internal; Path=/v2") == "a=1; Domain=up.internal; Path=/v2"


def test_long_values_take_linear_time() -> None:
    found = plan(rewrite={"cookie_domain": DOMAINS, "cookie_path": PATHS})
    long = "http://up.internal:9001" + "/" * 200_000
    assert location(found, long, "/a") == "/"
    assert location(found, "//" * 100_000, "/a") == "//" * 100_000
    assert len(cookie("a" + ";" * 100_000, cookie_domain=DOMAINS)) == 100_001
