"""The methods of proxy routes that name none: which route has a method, the answers to OPTIONS, and 405."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.gateways import gateway, says
from umbel.composition.plan.compiler import compile_route
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.gateway.browsers.preflight import rules_at
from umbel.gateway.request.request_fields import RequestFields
from umbel.gateway.routing.choice import Choice
from umbel.gateway.routing.host_map import HostMap

PROXY: dict[str, Any] = {"proxy": {"upstream": "up"}}
CALLS = {"calls": {"part": {"upstream": "up", "path": "/"}}}


def serve(*routes: dict[str, Any], **sections: Any) -> Umbel:
    return gateway(*routes, up=says(1), sections=sections)[0]


def endpoint(app: Umbel, method: str, path: str) -> str:
    assert isinstance(app.url_map, HostMap)
    rule, _ = app.url_map.adapter_for_host(None).match(path, method, return_rule=True)
    return str(rule.endpoint)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_a_proxy_route_without_methods_has_every_method(method: str) -> None:
    assert endpoint(serve({"path": "/<path:rest>", **PROXY}), method, "/a/b") == "umbel-route-0"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_connect_and_trace_are_not_allowed_and_the_usual_methods_are(method: str) -> None:
    app = serve({"path": "/<path:rest>", **PROXY})
    with pytest.raises(Exception, match="405") as caught:
        endpoint(app, method, "/a")
    assert sorted(caught.value.valid_methods) == ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", ["proxy", "composed"])
def test_a_route_that_names_its_methods_goes_before_a_proxy_route_with_the_same_path(first: str) -> None:
    routes = [{"path": "/r", **PROXY}, {"path": "/r", **CALLS}]
    app = serve(*(routes if first == "proxy" else reversed(routes)))
    composed = "umbel-route-1" if first == "proxy" else "umbel-route-0"
    assert [endpoint(app, method, "/r") == composed for method in ("GET", "HEAD", "POST")] == [True, True, False]


def test_a_method_that_a_more_specific_route_lacks_goes_to_the_proxy_route_below() -> None:
    app = serve({"path": "/r", **CALLS}, {"path": "/<path:rest>", **PROXY})
    assert [endpoint(app, method, "/r") for method in ("GET", "POST")] == ["umbel-route-0", "umbel-route-1"]


def test_the_methods_of_a_proxy_route_in_a_preflight_are_the_usual_ones() -> None:
    app = serve({"path": "/<path:rest>", **PROXY}, cors={"origins": ["https://a.example"]})
    assert isinstance(app.url_map, HostMap)
    found = rules_at(app.gateway_context.browsers, app.url_map.adapter_for_host(None), "/a", "PUT")
    assert list(found.methods) == ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


def test_methods_of_a_proxy_route_are_those_that_it_names() -> None:
    app = serve({"path": "/r", "methods": ["PUT"], **PROXY})
    assert endpoint(app, "PUT", "/r") == "umbel-route-0"
    with pytest.raises(Exception, match="405"):
        endpoint(app, "GET", "/r")


def test_routes_that_differ_in_match_leave_other_methods_to_the_one_with_all() -> None:
    config = Config.model_validate(
        {
            "upstreams": {"up": {"urls": ["http://u"]}},
            "routes": [
                {"path": "/r", **PROXY},
                {"path": "/r", "match": "headers.x_beta", **CALLS},
                {"path": "/r", "methods": ["PUT"], **CALLS},
            ],
        }
    )
    choice = Choice([(index, compile_route(config, index)) for index in range(3)])
    beta = RequestFields([(b"x-beta", b"1")])
    chosen = {method: choice.choose(method, beta, b"") for method in ("GET", "HEAD", "PUT", "PROPFIND")}
    assert chosen == {"GET": 1, "HEAD": 1, "PUT": 2, "PROPFIND": 0}
    assert choice.choose("GET", RequestFields([]), b"") == 0
