"""Requests of configured calls: what is sent, and what is refused."""

from __future__ import annotations

import pytest

from tests.support.composition.composing import TWO, answer, compose
from umbel import __version__
from umbel.core.call import block_of
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs


@pytest.mark.parametrize("value", [None, "", ".", "..", [1], {"a": 1}])
async def test_a_value_that_cannot_be_a_segment_fails_the_call_as_bad_request(value: object) -> None:
    text = TWO.replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": value})})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 502)
    ran = await compose(
        TWO.replace('path = "/b"', 'path = "/b/{id}"'), {"/a": answer(1)}, inputs=Inputs(path={"id": value})
    )
    assert ran.result.failure is not None
    assert ran.result.failure.status == 400, "the value is the client's"


async def test_a_hostile_value_stays_one_encoded_segment() -> None:
    text = TWO.replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": "../../admin?x#y"}), "/b/..%2F..%2Fadmin%3Fx%23y": answer(2)})
    assert ran.result.answer["b"] == 2


async def test_a_request_has_the_configured_fields_and_the_gateway_fields() -> None:
    text = TWO + 'forward_headers = ["x-tenant", "x-request-id"]\nforward_query = ["q"]\nforward_cookies = ["s"]\n'
    inputs = Inputs(
        headers={"x-tenant": "t", "x-secret": "s", "x-request-id": "forged"},
        raw_query=b"q=a%20b&z=1&q=c",
        cookies={"s": "1", "t": "2"},
        request_id="r-1",
        forwarded=block_of([("Via", "1.1 umbel")]),
        forwarded_for=block_of([("X-Forwarded-For", "10.0.0.1")]),
    )
    ran = await compose(text, {"/a": answer(1), "/b": answer(2)}, inputs=inputs)
    sent = next(r for r in ran.upstream.requests if r.extensions["target"].startswith(b"/b"))
    assert sent.extensions["target"] == b"/b?q=a%20b&q=c"
    headers = {name: value for name, value in sent.headers.items() if not name.startswith(("host", "accept"))}
    assert headers == {
        "x-tenant": "t",
        "cookie": "s=1",
        "x-request-id": "r-1",
        "via": "1.1 umbel",
        "x-forwarded-for": "10.0.0.1",
        "user-agent": f"umbel/{__version__}",
    }


@pytest.mark.parametrize(
    ("keys", "body", "content_type"),
    [
        ('json = "{x: body.a}"', b'{"x":"1 2"}', "application/json"),
        ('json = { x = "body.a" }', b'{"x":"1 2"}', "application/json"),
        ('form = "body"', b"a=1+2", "application/x-www-form-urlencoded"),
        ('form = { x = "body.a", y = "body.nope" }', b"x=1+2", "application/x-www-form-urlencoded"),
        ("forward_body = true", b"raw", "text/plain"),
    ],
)
async def test_a_configured_body_is_sent_with_its_content_type(keys: str, body: bytes, content_type: str) -> None:
    text = f'[routes.calls.a]\nupstream = "u"\npath = "/a"\n{keys}\n'
    inputs = Inputs(body={"a": "1 2"}, raw_body=b"raw", content_type="text/plain")
    ran = await compose(text, {"/a": answer(1)}, inputs=inputs)
    [sent] = ran.upstream.requests
    assert (sent.method, sent.content, sent.headers["content-type"]) == ("POST", body, content_type)


async def test_a_forwarded_header_with_a_line_break_is_left_out() -> None:
    ran = await compose(
        TWO + 'forward_headers = ["x-a", "x-c"]\n',
        {"/a": answer(1), "/b": answer(2)},
        inputs=Inputs(headers={"x-a": "1\r\nx-b: 2", "x-c": "3"}),
    )
    assert ran.result.failure is None
    sent = next(r for r in ran.upstream.requests if r.extensions["target"].startswith(b"/b"))
    assert (sent.headers.get("x-a"), sent.headers.get("x-b"), sent.headers.get("x-c")) == (None, None, "3")


@pytest.mark.parametrize(("keys", "words"), [('["q"]', 'query parameter "q"'), ('["*"]', "query")])
async def test_a_forwarded_query_that_is_too_long_is_a_400(keys: str, words: str) -> None:
    text = TWO + f"forward_query = {keys}\n"
    ran = await compose(text, {"/a": answer(1)}, inputs=Inputs(raw_query=b"q=" + b"x" * 17_000))
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 400)
    assert words in ran.result.failure.public


async def test_a_header_that_is_left_out_is_recorded_without_its_value() -> None:
    text = TWO + 'headers = { x-a = "{a.a}", x-null = "{a.none}", cookie = "c={a.c}" }\n'
    text += '[routes.answer]\nheaders = { x-list = "{a.list}" }\n'
    value = {"a": "secret\r\n", "c": "1;2", "list": [1]}
    ran = await compose(text, {"/a": answer(value), "/b": answer(2)})
    noted = [(note.level, note.event, note.message) for note in ran.recorder.logged]
    assert noted == [
        ("info", "header.left-out", "x-a: {a.a} holds a control character, or is no Unicode"),
        ("info", "header.left-out", "cookie: a semicolon would begin another cookie"),
        ("info", "header.left-out", "x-list: {a.list} is a list"),
    ]
