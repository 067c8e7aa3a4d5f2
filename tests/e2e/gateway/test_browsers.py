"""CORS and security fields on each kind of answer, under both servers, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from quart import Response, abort

from tests.support.gateway.program import SERVERS, Program, route, running, up
from tests.support.server.http_channels import PROTOCOLS, opened
from tests.support.server.serving import fetch
from tests.support.upstream.raw_server import answering, raw_server, response
from umbel import Umbel

APP = "https://app.example"
FIELDS = {
    "access-control-allow-origin": APP,
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "etag, umbel-completed, server-timing",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-own": "always",
}
NAMES = [*FIELDS, "vary"]
ANSWERS = {
    "/r": 200,
    "/stream": 200,
    "/respond": 201,
    "/old": 308,
    "/folder": 308,
    "/dead": 502,
    "/none": 404,
    "/put": 405,
    "/a%2fb": 400,
    "/view": 200,
    "/private": 401,
    "/crash": 500,
    "/composed": 200,
    "/livez": 200,
    "/readyz": 200,
}
NO_CALL = "when = '`false`'"
SAID = response(b"1", b"Content-Type: application/json", b"Access-Control-Allow-Origin: *", b"X-Own: no")
"""The response of the upstream."""


def configuration(upstream: int) -> str:
    return (
        f'[cors]\norigins = ["{APP}"]\ncredentials = true\n[headers]\nset = {{ x-own = "always" }}\n'
        f"{up(upstream)}{up(1, name='dead')}"
        + route("/r", answer='forward_headers = { part = ["access-control-allow-origin", "x-own", "vary-not"] }')
        + route("/stream", keys="stream = true")
        + route("/folder/", call=NO_CALL)
        + route("/put", keys='methods = ["PUT"]', call=NO_CALL)
        + route("/dead", upstream="dead")
        + '[[routes]]\npath = "/respond"\nrespond = { status = 201, text = "x", headers = { x-own = "no" } }\n'
        + '[[routes]]\npath = "/old"\nredirect.to = "/r"\n'
    )


def prepare(app: Umbel) -> None:
    @app.get("/view")
    async def view() -> Response:
        own = {"Access-Control-Allow-Origin": "*", "Vary": "Cookie", "X-Own": "no"}
        return Response("view", headers=own)

    @app.get("/private")
    async def private() -> str:
        abort(401)

    @app.get("/crash")
    async def crash() -> str:
        raise RuntimeError("a crash of the test")

    @app.compose("/composed")
    async def composed(compose: object) -> object:
        return 1, 200, {"Access-Control-Allow-Origin": "*"}


def serving(directory: Path, upstream: int, stock: bool) -> AbstractAsyncContextManager[Program]:
    return running(directory, configuration(upstream), stock=stock, prepare=prepare)


@SERVERS
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_kind_of_answer_has_each_field_once(tmp_path: Path, stock: bool, protocol: str) -> None:
    async with raw_server(answering(SAID)) as server, serving(tmp_path, int(server), stock) as gateway:
        for target, status in ANSWERS.items():
            for method in ("GET", "HEAD"):
                async with opened(protocol, gateway.port) as channel:
                    await channel.request(method, target, [("origin", APP)])
                    answered, fields = await channel.answer()
                assert answered == status, target
                assert {name: fields.get(name) for name in FIELDS} == FIELDS, target
                assert "Origin" in fields["vary"].split(", "), target


@SERVERS
async def test_no_field_is_sent_twice_and_a_304_has_the_fields_too(tmp_path: Path, stock: bool) -> None:
    async with raw_server(answering(SAID)) as server, serving(tmp_path, int(server), stock) as gateway:
        for target in ANSWERS:
            reply = await fetch(gateway.port, "GET", target, [("origin", APP)])
            names = [name for name, _ in reply.headers]
            assert [names.count(name) for name in NAMES] == [1] * len(NAMES), target
        etag = (await fetch(gateway.port, "GET", "/r", [("origin", APP)]))["etag"]
        reply = await fetch(gateway.port, "GET", "/r", [("origin", APP), ("if-none-match", etag)])
        assert (reply.status, reply["access-control-allow-origin"], reply["vary"]) == (304, APP, "Accept, Origin")


@SERVERS
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_preflight_makes_no_call_and_has_one_record(tmp_path: Path, stock: bool, protocol: str) -> None:
    asked = [("origin", APP), ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-a")]
    async with serving(tmp_path, 1, stock) as gateway:
        for target in ("/put", "/r", "/view", "/none", "//put"):
            async with opened(protocol, gateway.port) as channel:
                await channel.request("OPTIONS", target, asked)
                status, fields = await channel.answer()
            assert (status, fields["access-control-allow-origin"]) == (204, APP)
            assert fields["access-control-allow-headers"] == "authorization, content-type"
    lines = (tmp_path / "logs" / "access.jsonl").read_text().splitlines()
    assert [json.loads(line)["http.response.status_code"] for line in lines] == [204] * 5
    assert gateway.lines("calls") == []


async def test_the_body_of_a_refused_upload_is_readable_by_the_page(tmp_path: Path) -> None:
    text = '[server]\nmax_body = "1KB"\n' + configuration(1)
    async with running(tmp_path, text, prepare=prepare) as gateway:
        with trio.fail_after(10):
            reply = await fetch(gateway.port, "PUT", "/put", [("origin", APP)], b"x" * 2000)
    assert (reply.status, reply["access-control-allow-origin"]) == (413, APP)
