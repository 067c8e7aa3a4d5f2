"""Preflights: answered before everything that could refuse them, with the methods of the path's routes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from quart import Response, abort

from tests.support.server.asgi import Answer, Conversation, ask, http_scope, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.core.inbound import RequestHead
from umbel.gateway.app import Umbel

pytestmark = pytest.mark.usefixtures("way")
MockClock = trio.testing.MockClock
APP = "https://app.example"
CORS = {"cors": {"origins": [APP]}}
ALL = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


async def preflight(app: Umbel, target: str, method: str = "GET", *more: tuple[str, str], origin: str = APP) -> Answer:
    headers = [("origin", origin), ("access-control-request-method", method), *more]
    answer = await ask(app, "OPTIONS", target, headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert "Origin" in answer["vary"].split(", ")
    assert answer["x-content-type-options"] == "nosniff"
    return answer


def methods(answer: Answer) -> str:
    assert answer["access-control-allow-origin"] == APP
    return answer["access-control-allow-methods"]


async def test_a_preflight_names_the_methods_of_the_route_that_the_request_would_have(
    autojump_clock: MockClock,
) -> None:
    up = Function(says(1))
    app, records = gateway(
        route("/r/<id>", methods=["GET"]), route("/r/<id>", methods=["PUT", "PATCH"]), sections=CORS, up=up
    )
    async with living(app):
        assert methods(await preflight(app, "/r/1")) == "GET, HEAD, OPTIONS"
        answer = await preflight(app, "/r/1?a=b", "PATCH")
        assert methods(answer) == "OPTIONS, PATCH, PUT"
        assert answer["access-control-allow-headers"] == "authorization, content-type"
        assert answer["access-control-max-age"] == "7200"
        assert answer["vary"] == "Origin, Access-Control-Request-Method"
        # The method does not fit: the methods of all routes of the path.
        assert methods(await preflight(app, "/r/1", "DELETE")) == "GET, HEAD, OPTIONS, PATCH, PUT"
        assert methods(await preflight(app, "/r/1", "b\xe4d")) == "GET, HEAD, OPTIONS, PATCH, PUT"
    assert not up.asked
    assert [(each.status, each.request.route) for each in records.requests] == [(204, "/r/<id>")] * 4


@pytest.mark.parametrize("target", ["/none", "//none", "/a%2fb", "/../x", "/%ff"])
async def test_a_path_without_a_route_allows_all_methods_so_that_its_error_is_readable(
    target: str, autojump_clock: MockClock
) -> None:
    app, _ = gateway(sections=CORS)
    async with living(app):
        assert methods(await preflight(app, target, "PUT")) == ALL
        answer = await ask(app, "PUT", target, headers=[("origin", APP)])
    assert answer.status >= 300
    assert answer["access-control-allow-origin"] == APP


async def test_a_path_that_is_redirected_has_the_methods_of_its_route(autojump_clock: MockClock) -> None:
    app, _ = gateway(route("/r/", methods=["PUT"]), sections=CORS, up=says(1))
    async with living(app):
        for target in ("/r", "//r/", "/r//"):
            assert methods(await preflight(app, target, "PUT")) == "OPTIONS, PUT"
        answer = await ask(app, "PUT", "/r", headers=[("origin", APP)])
    assert (answer.status, answer["access-control-allow-origin"]) == (308, APP)


async def test_an_origin_that_is_not_allowed_gets_no_permission_and_its_request_is_served(
    autojump_clock: MockClock,
) -> None:
    app, _ = gateway(route(), sections=CORS, up=says(1))
    async with living(app):
        answer = await preflight(app, "/r", origin="https://evil.example")
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
        answer = await ask(app, target="/r", headers=[("origin", "https://evil.example")])
    assert answer.status == 200
    assert answer["vary"] == "Accept, Origin"
    assert not answer.all("access-control-allow-origin")


async def test_rules_of_a_route_replace_those_of_the_application(autojump_clock: MockClock) -> None:
    other = "https://other.example"
    app, _ = gateway(
        route("/own", methods=["GET"], cors={"origins": [other], "headers": ["x-a"], "credentials": True}),
        route("/own", methods=["PUT"]),
        route("/off", cors=False),
        sections=CORS,
        up=says(1),
    )
    async with living(app):
        answer = await preflight(app, "/own", origin=other)
        assert answer["access-control-allow-headers"] == "x-a"
        assert answer["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
        assert answer["access-control-allow-credentials"] == "true"
        assert not (await preflight(app, "/own")).all("access-control-allow-origin")
        assert methods(await preflight(app, "/own", "PUT")) == "OPTIONS, PUT"
        # The gateway leaves the preflights of a route without CORS to the route.
        answer = await preflight(app, "/off")
        assert (answer["allow"], answer.all("access-control-allow-origin")) == ("GET, HEAD, OPTIONS", [])
        for method in ("GET", "POST"):
            answer = await ask(app, method, "/off", headers=[("origin", APP)])
            assert ("Origin" in answer["vary"], answer.all("access-control-allow-origin")) == (True, [])
        # A method that no route has gets the rules of the first one.
        answer = await ask(app, "DELETE", "/own", headers=[("origin", other)])
        assert (answer.status, answer["access-control-allow-origin"]) == (405, other)


async def test_rules_of_one_route_say_nothing_of_other_paths(autojump_clock: MockClock) -> None:
    app, _ = gateway(route("/own", cors={"origins": [APP]}), route("/r"), sections={}, up=says(1))
    async with living(app):
        assert methods(await preflight(app, "/own")) == "GET, HEAD, OPTIONS"
        for target in ("/r", "/none"):
            answer = await ask(app, target=target, headers=[("origin", APP)])
            assert not answer.all("access-control-allow-origin")
            assert "Origin" not in answer.all("vary")


async def test_a_preflight_is_answered_before_hooks_and_views(autojump_clock: MockClock) -> None:
    app, _ = gateway(sections=CORS)

    @app.before_request
    async def login() -> None:
        abort(401)

    @app.route("/view", methods=["GET", "OPTIONS"])
    async def view() -> Any:
        raise AssertionError("the preflight reached the view")

    @app.compose("/composed", methods=["POST"])
    async def composed(compose: Any) -> Any:
        raise AssertionError("the preflight reached the handler")

    async with living(app):
        assert methods(await preflight(app, "/view")) == "GET, HEAD, OPTIONS"
        assert methods(await preflight(app, "/composed", "POST")) == "OPTIONS, POST"
        for target in ("/view", "/composed"):
            answer = await ask(app, "POST", target, headers=[("origin", APP)])
            assert (answer.status in (401, 405), answer["access-control-allow-origin"]) == (True, APP)


async def test_options_without_a_requested_method_is_no_preflight(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), sections=CORS, up=says(1))
    async with living(app):
        for headers in ([("origin", APP)], [("access-control-request-method", "GET")], []):
            answer = await ask(app, "OPTIONS", "/r", headers=headers)
            assert (answer.status, answer["allow"]) == (204, "GET, HEAD, OPTIONS")
            assert not answer.all("access-control-allow-methods")


async def test_a_request_from_a_public_to_a_private_network_is_allowed_if_it_is_configured(
    autojump_clock: MockClock,
) -> None:
    cors = {"origins": [APP], "private_network": True}
    app, _ = gateway(route(), sections={"cors": cors}, up=says(1))
    async with living(app):
        answer = await preflight(app, "/r", "GET", ("access-control-request-private-network", "true"))
        assert answer["access-control-allow-private-network"] == "true"
        assert "Access-Control-Request-Private-Network" in answer["vary"]
        assert not (await preflight(app, "/r")).all("access-control-allow-private-network")


async def test_cors_fields_of_a_view_a_handler_and_an_upstream_do_not_appear(autojump_clock: MockClock) -> None:
    own = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "Vary": "Origin, X-A"}
    answer_rules = {"forward_headers": {"part": list(own)[:2]}}
    app, _ = gateway(route(answer=answer_rules), sections=CORS, up=says(1, headers=own))

    @app.get("/view")
    async def view() -> Response:
        return Response("x", headers=own)

    @app.compose("/composed")
    async def composed(compose: Any) -> Any:
        return 1, 200, own

    async with living(app):
        for target in ("/r", "/view", "/composed"):
            for origin, said in ((APP, [APP]), ("https://evil.example", [])):
                answer = await ask(app, target=target, headers=[("origin", origin)])
                assert answer.status == 200
                assert answer.all("access-control-allow-origin") == said, target
                assert not answer.all("access-control-allow-credentials")
                assert ", ".join(answer.all("vary")).lower().count("origin") == 1, target


async def test_below_a_root_path_the_methods_are_those_of_the_route(autojump_clock: MockClock) -> None:
    app, _ = gateway(route("/r", methods=["PUT"]), sections=CORS, up=says(1))
    async with living(app):
        headers = [("origin", APP), ("access-control-request-method", "PUT")]
        scope = {**http_scope("OPTIONS", "/below/r", headers=headers), "root_path": "/below"}
        conversation = Conversation(app, scope)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run)
            await conversation.body(b"")
    assert methods(conversation.answer) == "OPTIONS, PUT"


async def test_before_the_startup_a_refused_request_has_the_fields(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), sections=CORS, up=says(1))
    answer = await ask(app, target="/r", headers=[("origin", APP)])
    assert (answer.status, answer["access-control-allow-origin"]) == (503, APP)


async def test_the_host_of_a_preflight_decides_which_route_it_is_about(autojump_clock: MockClock) -> None:
    other = "https://other.example"
    app, _ = gateway(
        route("/r", host="shop.example", methods=["PUT"], cors={"origins": [other]}),
        route("/r", methods=["GET"], match="headers.x_a == '1'"),
        route("/r", methods=["GET"]),
        sections=CORS,
        up=says(1),
    )
    async with living(app):
        assert methods(await preflight(app, "/r")) == "GET, HEAD, OPTIONS"
        asked = [("host", "shop.example"), ("origin", other), ("access-control-request-method", "PUT")]
        answer = await ask(app, "OPTIONS", "/r", headers=asked)
        assert answer["access-control-allow-methods"] == "OPTIONS, PUT"
        for host, origin in (("shop.example", other), ("www.example", APP)):
            answer = await ask(app, "DELETE", "/r", headers=[("host", host), ("origin", origin)])
            assert (answer.status, answer["access-control-allow-origin"]) == (405, origin)


async def test_a_path_that_only_some_methods_redirect_has_the_rules_of_the_others(autojump_clock: MockClock) -> None:
    app, _ = gateway(route("/a/", methods=["GET"]), route("/a", methods=["PUT"]), sections=CORS, up=says(1))
    async with living(app):
        for method in ("GET", "PUT", "DELETE"):
            for target in ("/a", "/a/"):
                assert "OPTIONS" in methods(await preflight(app, target, method))


async def test_a_handler_may_do_without_cors_or_write_its_own_fields(autojump_clock: MockClock) -> None:
    app, _ = gateway(sections=CORS)

    @app.compose("/own", cors=False)
    async def own(compose: Any) -> Any:
        return 1, 200, {"Access-Control-Allow-Origin": "https://own.example"}

    async with living(app):
        answer = await ask(app, target="/own", headers=[("origin", APP)])
        assert (answer["access-control-allow-origin"], answer["vary"]) == ("https://own.example", "Accept, Origin")
        answer = await ask(app, "POST", "/own", headers=[("origin", APP)])
        assert (answer.status, answer.all("access-control-allow-origin")) == (405, [])
        assert (await preflight(app, "/own"))["allow"] == "GET, HEAD, OPTIONS"


async def test_a_path_with_encoded_slashes_that_is_not_utf_8_is_refused_readably(autojump_clock: MockClock) -> None:
    kept = route("/files/<name>", encoded_slash="keep", cors={"origins": [APP]})
    app, _ = gateway(kept, sections={"cors": {"origins": ["https://other.example"]}}, up=says(1))
    async with living(app):
        assert methods(await preflight(app, "/files/a%2fb")) == "GET, HEAD, OPTIONS"
        await preflight(app, "/files/a%2f%ff")
        for target, status in (("/files/a%2fb", 200), ("/files/a%2f%ff", 400), ("/files/%ff%2f", 400)):
            answer = await ask(app, target=target, headers=[("origin", APP)])
            assert (answer.status, answer["access-control-allow-origin"]) == (status, APP)
    head = RequestHead("GET", b"/files/a%2f%ff?q", [(b"origin", APP.encode())], "http", None)
    assert (b"access-control-allow-origin", APP.encode()) in app.error_response_fields(head, [])


OTHER = "https://other.example"
OF_OTHER = {"cors": {"origins": [OTHER]}}


async def test_a_target_in_absolute_form_has_the_rules_of_its_route(autojump_clock: MockClock) -> None:
    app, _ = gateway(
        route("/own/<id>", cors=False),
        route("/open/<id>", methods=["PUT"], cors={"origins": [APP]}),
        route("/kept/<id>", encoded_slash="keep", cors={"origins": [APP]}),
        sections=OF_OTHER,
        up=says(1),
    )
    async with living(app):
        for path in ("/own/1", "/own/1;x", "/own/1%23x", "/own/1%3Fx"):
            answer = await ask(app, target=f"http://gateway.test{path}?q", headers=[("origin", OTHER)])
            assert (answer.status, answer.all("access-control-allow-origin")) == (200, []), path
        assert methods(await preflight(app, "http://gateway.test/open/1", "PUT")) == "OPTIONS, PUT"
        answer = await ask(app, target="http://gateway.test/kept/a%2Fb?q", headers=[("origin", APP)])
        assert (answer.status, answer["access-control-allow-origin"]) == (200, APP)
        answer = await ask(app, target="http://evil.example/own/1", headers=[("origin", OTHER)])
        assert (answer.status, answer.all("access-control-allow-origin")) == (400, [])
    head = RequestHead("GET", b"http://evil.example/own/1", [(b"origin", OTHER.encode())], "http", None)
    assert b"access-control-allow-origin" not in dict(app.error_response_fields(head, []))


async def test_a_path_that_is_refused_for_an_encoded_slash_has_the_rules_of_its_route(
    autojump_clock: MockClock,
) -> None:
    open_route = route("/open/<id>", cors={"origins": [APP]})
    for more in ([], [route("/kept/<id>", encoded_slash="keep")]):
        app, _ = gateway(open_route, *more, sections=OF_OTHER, up=says(1))
        async with living(app):
            answer = await ask(app, target="/open/a%2Fb", headers=[("origin", APP)])
            assert (answer.status, answer["access-control-allow-origin"]) == (400, APP)
        head = RequestHead("GET", b"/open/a%2fb", [(b"origin", APP.encode())], "http", None)
        assert (b"access-control-allow-origin", APP.encode()) in app.error_response_fields(head, [])


async def test_a_preflight_of_a_probe_names_the_methods_and_the_rules_of_probes(autojump_clock: MockClock) -> None:
    any_path = route("/<name>", methods=["PUT"], cors={"origins": [OTHER]})
    for routes, has_view, expected in (
        ((), False, "GET, HEAD, OPTIONS"),
        ((any_path,), False, "GET, HEAD, OPTIONS"),
        ((any_path,), True, "OPTIONS, POST"),
    ):
        app, _ = gateway(*routes, sections=CORS, up=says(1))
        if has_view:
            app.add_url_rule("/readyz", "own", lambda: "x", methods=["POST"])
        async with living(app):
            assert methods(await preflight(app, "/readyz", "POST")) == expected
            answer = await ask(app, target="/livez", headers=[("origin", APP)])
            assert (answer.status, answer["access-control-allow-origin"]) == (200, APP)
