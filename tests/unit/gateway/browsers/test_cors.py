"""CORS rules: which origins are allowed, and the fields of responses and preflights."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway.gateways import gateway, route, says
from umbel.config.schema.browsers import Cors
from umbel.gateway.app import Umbel
from umbel.gateway.browsers.cors import CorsRules
from umbel.gateway.browsers.preflight import rules_at
from umbel.gateway.routing.url_map import UmbelMap

APP, PREVIEW = "https://app.example", "https://*.preview.example:8443"


def rules(*origins: str, **keys: Any) -> CorsRules:
    return CorsRules(Cors.model_validate({"origins": list(origins), **keys}))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("https://pr-12.preview.example:8443", True),
        ("https://_x.preview.example:8443", True),
        # Another scheme, port, host or case.
        ("http://app.example", False),
        ("https://app.example:443", False),
        ("https://app.example:8443", False),
        ("https://APP.example", False),
        ("https://app.example/", False),
        ("https://app.example.evil.example", False),
        ("https://evilapp.example", False),
        ("https://www.app.example", False),
        ("https://app.example@evil.example", False),
        # The wildcard stands for one label, and for nothing else.
        ("https://preview.example:8443", False),
        ("https://.preview.example:8443", False),
        ("https://*.preview.example:8443", False),
        ("https://a.b.preview.example:8443", False),
        ("https://a.preview.example", False),
        ("http://a.preview.example:8443", False),
        ("https://a.preview.example:8443.evil.example", False),
        ("https://evil.example#.preview.example:8443", False),
        ("https://evil.example/.preview.example:8443", False),
        ("https://a\r\nx.preview.example:8443", False),
        ("https://a\n.preview.example:8443", False),
        ("https://\xe4.preview.example:8443", False),
        # No single origin.
        ("null", False),
        ("*", False),
        ("", False),
        ("https://app.example, https://app.example", False),
        ("https://app.example https://app.example", False),
    ],
)
def test_an_origin_is_allowed_if_it_equals_one_or_has_one_label_for_the_wildcard(origin: str, allowed: bool) -> None:
    assert rules(APP, PREVIEW).allows(origin) is allowed


@given(st.text(max_size=40))
def test_no_other_text_around_an_origin_is_allowed(text: str) -> None:
    checked = rules(APP, "https://*.preview.example")
    for origin in (APP + text, text + APP, f"https://{text}", f"{text}.preview.example", text):
        assert not checked.allows(origin) or origin == APP or origin.startswith("https://")
    label = f"https://{text}.preview.example"
    plain = text != "" and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert checked.allows(label) is plain


def test_a_star_allows_every_origin_and_is_sent_in_place_of_it() -> None:
    checked = rules("*")
    assert checked.allows("null")
    assert checked.allows("https://any.example")
    assert dict(checked.fields("null"))[b"access-control-allow-origin"] == b"*"


def test_the_fields_of_a_response_name_origin_credentials_and_exposed_fields() -> None:
    assert rules(APP, credentials=True, expose=["ETag", "x-a"]).fields(APP) == (
        (b"access-control-allow-origin", APP.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"etag, x-a"),
    )
    assert rules(APP, expose=[]).fields(APP) == ((b"access-control-allow-origin", APP.encode()),)


def test_the_fields_of_a_preflight_name_methods_headers_and_age() -> None:
    asked = rules(APP, headers=["x-a"], max_age="90s").preflight_fields(APP, ["GET", "PUT"], private_network=True)
    assert asked == (
        (b"access-control-allow-origin", APP.encode()),
        (b"access-control-allow-methods", b"GET, PUT"),
        (b"access-control-allow-headers", b"x-a"),
        (b"access-control-max-age", b"90"),
    )


def test_configured_methods_replace_those_of_the_route() -> None:
    fields = dict(rules(APP, methods=["DELETE"]).preflight_fields(APP, ["GET"], private_network=False))
    assert fields[b"access-control-allow-methods"] == b"DELETE"


@pytest.mark.parametrize(
    ("configured", "asked", "sent"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_private_network_is_allowed_if_it_is_configured_and_asked_for(
    configured: bool, asked: bool, sent: bool
) -> None:
    checked = rules(APP, private_network=configured)
    fields = dict(checked.preflight_fields(APP, ["GET"], private_network=asked))
    assert (b"access-control-allow-private-network" in fields) is sent
    assert ("Access-Control-Request-Private-Network" in checked.preflight_reads) is configured


@cache
def _application() -> Umbel:
    routes = route("/a/", methods=["GET"]), route("/<path:b>/c"), route("/", host="*.x.example")
    return gateway(*routes, up=says(1))[0]


@given(path=st.text(max_size=30), method=st.text(max_size=5))
def test_every_path_and_method_has_rules(path: str, method: str) -> None:
    app = _application()
    adapter = cast("UmbelMap", app.url_map).adapter_for_host("www.x.example")
    for each in (path, "/" + path, "//" + path, f"/{path}/c/", f"//[{path}/c/"):
        assert rules_at(app.gateway_context.browsers, adapter, each, method).methods
