"""Browser fields: the last change of a response's fields, for CORS and for ``[headers]``."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.config.schema.sections import Config
from umbel.core.networks import Networks
from umbel.gateway.browsers.browser_fields import BrowserRules
from umbel.gateway.request.client_origin import origin_of

APP = "https://app.example"
CORS = {"cors": {"origins": [APP], "expose": []}}
Fields = list[tuple[bytes, bytes]]


def added(tables: dict[str, Any], fields: Fields, *asked: tuple[bytes, bytes], scheme: str = "http") -> Fields:
    """Return the fields of a response to a request with the fields ``asked``."""
    rules, fields = BrowserRules(Config.model_validate(tables)), list(fields)
    rules.default.add(fields, origin_of("127.0.0.1", asked, Networks(()), scheme=scheme))
    return fields


def of(origin: str) -> tuple[bytes, bytes]:
    return b"origin", origin.encode()


ALLOWED = (b"access-control-allow-origin", APP.encode())
API = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


@pytest.mark.parametrize(
    ("given", "varied"),
    [
        ([], [b"Origin"]),
        ([b"Accept"], [b"Accept, Origin"]),
        ([b"accept,  x-a ,"], [b"accept, x-a, Origin"]),
        ([b"Accept, origin"], [b"Accept, origin"]),
        ([b"*"], [b"*"]),
        ([b"Accept", b"X-A"], [b"Accept, Origin", b"X-A"]),
        ([b""], [b"Origin"]),
        ([b"x" * 2000], [b"x" * 2000 + b", Origin"]),
    ],
)
@pytest.mark.parametrize("origin", [APP, "https://evil.example", None])
def test_vary_names_origin_once_whatever_the_origin(
    given: list[bytes], varied: list[bytes], origin: str | None
) -> None:
    asked = () if origin is None else (of(origin),)
    fields = added(CORS, [(b"vary", value) for value in given], *asked)
    assert [value for name, value in fields if name == b"vary"] == varied
    # The same with a field that must be removed.
    fields = added(CORS, [*((b"vary", value) for value in given), (b"access-control-max-age", b"1")], *asked)
    assert [value for name, value in fields if name == b"vary"] == varied


def test_without_cors_nothing_is_said_of_origins() -> None:
    own = [(b"access-control-allow-origin", b"*"), (b"vary", b"Accept")]
    assert added({}, own, of(APP)) == [*own, *API]


@pytest.mark.parametrize("origin", [APP, "https://evil.example"])
def test_cors_fields_of_the_response_are_replaced_for_any_origin(origin: str) -> None:
    own = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-secret"),
        (b"access-control-allow-origin", b"https://evil.example"),
        (b"content-type", b"text/plain"),
    ]
    fields = added(CORS, own, of(origin))
    said = [field for field in fields if field[0].startswith(b"access-control-")]
    assert said == ([ALLOWED] if origin == APP else [])
    assert fields[0] == (b"content-type", b"text/plain")


def test_a_repeated_origin_is_not_allowed() -> None:
    assert ALLOWED not in added(CORS, [], of(APP), of(APP))
    assert ALLOWED in added(CORS, [], of(APP))


def test_the_preset_api_is_the_default() -> None:
    assert added({}, [(b"a", b"b")]) == [(b"a", b"b"), *API]
    assert added({"headers": {"preset": "off"}}, [(b"a", b"b")]) == [(b"a", b"b")]


def test_the_preset_web_sends_hsts_to_clients_with_https_only() -> None:
    web = {"headers": {"preset": "web"}}
    names = [name for name, _ in added(web, [], scheme="https")]
    assert names == [
        *(b"x-content-type-options", b"referrer-policy", b"strict-transport-security"),
        *(b"content-security-policy", b"cross-origin-resource-policy"),
    ]
    assert b"strict-transport-security" not in dict(added(web, []))


def test_hsts_follows_the_scheme_that_a_trusted_proxy_reports() -> None:
    rules = BrowserRules(Config.model_validate({"headers": {"preset": "web"}}))
    for trusted, sent in ((("127.0.0.1",), True), ((), False)):
        fields: Fields = []
        rules.default.add(fields, origin_of("127.0.0.1", [(b"x-forwarded-proto", b"https")], Networks(trusted)))
        assert (b"strict-transport-security" in dict(fields)) is sent


def test_a_configured_hsts_is_not_sent_over_http() -> None:
    hsts = {"headers": {"set": {"Strict-Transport-Security": "max-age=1"}}}
    assert added(hsts, []) == API
    assert added(hsts, [], scheme="https") == [*API, (b"strict-transport-security", b"max-age=1")]


def test_a_field_of_a_preset_is_added_where_the_response_has_none() -> None:
    own = (b"content-security-policy", b"default-src 'self'")
    fields = added({"headers": {"preset": "web"}}, [own])
    assert [field for field in fields if field[0] == own[0]] == [own]
    assert API[0] in fields


def test_a_field_in_set_replaces_and_a_field_in_remove_is_gone() -> None:
    headers = {"set": {"X-A": "new", "x-c": "d"}, "remove": ["server-timing", "Referrer-Policy"]}
    own = [(b"x-a", b"1"), (b"x-a", b"2"), (b"server-timing", b"umbel;dur=1"), (b"b", b"c"), (b"x-c", b"x")]
    assert added({"headers": headers}, own) == [
        (b"b", b"c"),
        API[0],
        (b"x-a", b"new"),
        (b"x-c", b"d"),
    ]
    assert added({"headers": headers}, [(b"referrer-policy", b"origin")])[0] == API[0]


def test_fields_are_the_same_from_the_cache() -> None:
    rules = BrowserRules(Config.model_validate(CORS)).default
    for origin in (APP, "https://evil.example", "x" * 5000, APP):
        first: Fields = [(b"vary", b"Accept")]
        again: Fields = [(b"vary", b"Accept")]
        client = origin_of("127.0.0.1", [of(origin)], Networks(()))
        rules.add(first, client)
        rules.add(again, client)
        assert first == again
        assert (ALLOWED in first) is (origin == APP)


def test_clients_cannot_fill_the_caches_beyond_their_bounds() -> None:
    rules = BrowserRules(Config.model_validate({"cors": {"origins": ["https://*.app.example"]}})).default
    for number in range(600):
        fields: Fields = [(b"vary", b"x-%d" % number)]
        rules.add(fields, origin_of("127.0.0.1", [of(f"https://n{number}.app.example")], Networks(())))
        rules.add(fields, origin_of("127.0.0.1", [of("x" * 300 + str(number))], Networks(())))
    assert len(rules._known.entries) <= 256
    assert len(rules._varied.entries) <= 256
    assert max(len(origin) for _, origin in rules._known.entries) <= 256
