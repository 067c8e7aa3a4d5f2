"""Request bodies: media types, limits, and the decoded value."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.support.server.asgi import ask, conversation, living
from tests.unit.gateway.gateways import Function, gateway, says
from umbel.core.errors import RequestError
from umbel.gateway.request.request_body import check_media_type
from umbel.gateway.request.request_fields import RequestFields

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock


def posting(form: str, upstream: Function, server: dict[str, Any] | None = None, **keys: Any) -> Any:
    calls = {"part": {"upstream": "up", "path": "/", "json": "{got: body}"}}
    if form == "bytes":
        calls = {"part": {"upstream": "up", "path": "/", "forward_body": True, "method": "PUT"}}
    return gateway({"path": "/r", "calls": calls, "body": form, **keys}, server=server, up=upstream)


async def test_a_json_body_reaches_the_plan(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("json", upstream)
    async with living(app):
        for media in ("application/json", "application/json; charset=UTF-8", "application/merge-patch+json"):
            answer = await ask(app, "POST", "/r", body=b'{"a": [1, null]}', headers=[("content-type", media)])
            assert answer.status == 200
            assert upstream.asked[-1].content == b'{"got":{"a":[1,null]}}'


READ: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "text/json": ([("content-type", "text/json")], '{"a":"\u00e9"}'.encode()),
    "problem+json": ([("content-type", "application/problem+json")], '{"a":"\u00e9"}'.encode()),
    "ISO-8859-1": ([("content-type", "application/json; charset=ISO-8859-1")], b'{"a":"\xe9"}'),
    "a quoted charset": ([("content-type", 'application/json;charset="Windows-1252"')], b'{"a":"\xe9"}'),
    "a charset in single quotes": ([("content-type", "application/json; charset='utf-8'")], '{"a":"\u00e9"}'.encode()),
    "UTF-8 that is said to be another": (
        [("content-type", "application/json; charset=iso-8859-1")],
        '{"a":"\u00e9"}'.encode(),
    ),
    "a byte order mark": ([("content-type", "application/json")], '\ufeff{"a":"\u00e9"}'.encode()),
    "the same type twice": ([("content-type", "application/json")] * 2, '{"a":"\u00e9"}'.encode()),
    "no coding": ([("content-type", "application/json"), ("content-encoding", "Identity")], '{"a":"\u00e9"}'.encode()),
    "an empty coding": ([("content-type", "application/json"), ("content-encoding", "")], '{"a":"\u00e9"}'.encode()),
}


@pytest.mark.parametrize("case", READ.values(), ids=READ)
async def test_a_json_body_with_an_unusual_content_type_is_accepted(
    case: tuple[list[tuple[str, str]], bytes], autojump_clock: MockClock
) -> None:
    headers, body = case
    upstream = Function(says(1))
    app, _ = posting("json", upstream)
    async with living(app):
        assert (await ask(app, "POST", "/r", body=body, headers=headers)).status == 200
    assert upstream.asked[0].content == '{"got":{"a":"\u00e9"}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf",
        "{}".encode("utf-16"),
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b"[Infinity]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"[" * 10_000 + b"]" * 10_000,
        b"[" * 300 + b"]" * 300,
        b"[" + b"1," * 200_001 + b"1]",
        b"1 2",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_a_malformed_json_body_is_a_400_and_no_call_is_made(body: bytes, autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, records = posting("json", upstream)
    async with living(app):
        answer = await ask(app, "POST", "/r", body=body, headers=[("content-type", "application/json")])
    assert answer.status == 400
    assert answer["content-type"] == "application/problem+json"
    assert not upstream.asked
    assert len(records.requests) == 1


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("json", [("content-length", "2")]),
        ("json", [("transfer-encoding", "chunked")]),
        ("json", [("content-type", "text/plain")]),
        ("json", [("content-type", "application/json, text/plain")]),
        ("json", [("content-type", "application/x-www-form-urlencoded")]),
        ("json", [("content-type", "application/json; charset=utf-16")]),
        ("json", [("content-type", "application/json; charset=shift_jis")]),
        ("json", [("content-type", "application/json; charset=punycode")]),
        ("form", [("content-type", "application/x-www-form-urlencoded; charset=latin-1")]),
        ("json", [("content-type", "application/json"), ("content-encoding", "gzip, br")]),
        ("form", [("content-type", "multipart/form-data; boundary=x")]),
        ("form", [("content-type", "application/x-www-form-urlencoded"), ("content-encoding", "compress")]),
    ],
)
async def test_another_media_type_or_coding_is_a_415_before_the_body_is_read(
    form: str, headers: list[tuple[str, str]], autojump_clock: MockClock
) -> None:
    upstream = Function(says(1))
    app, _ = posting(form, upstream)
    async with living(app), conversation(app, "POST", "/r", headers=headers) as talk:
        await talk.head.wait()
        assert talk.answer.status == 415
    assert not upstream.asked


async def test_a_form_is_an_object_whose_last_repeated_field_wins(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("form", upstream)
    form = [("content-type", "application/x-www-form-urlencoded")]
    async with living(app):
        await ask(app, "POST", "/r", body=b"a=1&b=%C3%A9+x&a=2&c=", headers=form)
        assert upstream.asked[-1].content == '{"got":{"a":"2","b":"é x","c":""}}'.encode()
        await ask(app, "POST", "/r", body=b"a=\xc3\xa9", headers=form)
        assert upstream.asked[-1].content == '{"got":{"a":"é"}}'.encode()
        for bad in (b"a=%ff", b"a=\xe9", b"&".join([b"a=1"] * 1001)):
            assert (await ask(app, "POST", "/r", body=bad, headers=form)).status == 400


async def test_form_fields_that_expressions_read_as_lists_are_lists(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    calls = {
        "each": {"upstream": "up", "path": "/{item}", "each": "body.id"},
        "all": {
            "upstream": "up",
            "path": "/",
            "json": "{tags: body.tag[*], one: body.one, words: join('-', body.word), first: body.n | [0]}",
        },
    }
    app, _ = gateway({"path": "/r", "calls": calls, "body": "form"}, up=upstream)
    form = [("content-type", "application/x-www-form-urlencoded")]
    async with living(app):
        for body, sent, items in (
            (b"tag=a&tag=b&one=1&one=2&word=x&word=y&n=1&n=2&id=7&id=8", (["a", "b"], "2", "x-y", "1"), 2),
            (b"tag=a&one=1&word=x&n=1&id=7", (["a"], "1", "x", "1"), 1),
            (b"other=1", ([], None, "", None), 0),
        ):
            upstream.asked.clear()
            assert (await ask(app, "POST", "/r", body=body, headers=form)).status == 200
            contents = [json.loads(request.content) for request in upstream.asked if request.content]
            assert contents == [dict(zip(("tags", "one", "words", "first"), sent, strict=True))]
            assert len(upstream.asked) == items + 1


async def test_a_body_of_bytes_is_forwarded_unchanged(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("bytes", upstream)
    async with living(app):
        await ask(app, "POST", "/r", body=b"\x00\xff", headers=[("content-type", "image/x-any")])
    assert upstream.asked[0].content == b"\x00\xff"
    assert upstream.asked[0].headers["content-type"] == "image/x-any"


async def test_a_body_whose_length_is_known_to_be_too_large_is_refused_unread(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("json", upstream, max_body="1KB")
    headers = [("content-type", "application/json"), ("content-length", "1001")]
    async with living(app), conversation(app, "POST", "/r", headers=headers) as talk:
        # The client has not sent a byte of the body.
        await talk.head.wait()
        assert talk.answer.status == 413
    assert talk.answer["cache-control"] == "no-store"


async def test_a_body_of_unknown_length_is_refused_at_the_limit(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("json", upstream, max_body="1KB")
    headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
    async with living(app), conversation(app, "POST", "/r", headers=headers) as talk:
        for _ in range(10):
            await talk.body(b"[" * 101, more=True)
        await talk.head.wait()
    assert talk.answer.status == 413
    assert not upstream.asked


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_a_body_of_exactly_the_limit_is_accepted(size: int, status: int, autojump_clock: MockClock) -> None:
    app, _ = posting("json", Function(says(1)), max_body="1KB")
    body = b'"' + b"x" * (size - 2) + b'"'
    async with living(app):
        answer = await ask(app, "POST", "/r", body=body, headers=[("content-type", "application/json")])
    assert answer.status == status


async def test_the_servers_limit_applies_to_every_route(autojump_clock: MockClock) -> None:
    from quart import request

    app, _ = posting("json", Function(says(1)), max_body="1MB", server={"max_body": "100B"})

    @app.post("/plain")
    async def plain() -> str:
        return str(len(await request.get_data()))

    async with living(app):
        json = [("content-type", "application/json")]
        assert (await ask(app, "POST", "/r", body=b" " * 101, headers=json)).status == 413
        refused = await ask(app, "POST", "/plain", body=b"x" * 101)
        assert (refused.status, refused["content-type"]) == (413, "application/problem+json")
        assert (await ask(app, "POST", "/plain", body=b"x" * 100)).body == b"100"


@pytest.mark.parametrize(
    ("way", "length", "seconds"), [("direct", "32768", 12), ("quart", None, 12.5)], indirect=["way"]
)
async def test_under_another_server_the_time_of_a_body_depends_on_its_length(
    length: str | None, seconds: float, autojump_clock: MockClock
) -> None:
    upstream = Function(says(1))
    app, _ = posting("json", upstream, deadline="2s", max_body="40960B")
    fields = [("content-type", "application/json"), *([("content-length", length)] if length else [])]
    async with living(app), conversation(app, "POST", "/r", headers=fields) as talk:
        await talk.body(b"{", more=True)
        began = trio.current_time()
        await talk.head.wait()
        assert trio.current_time() - began == pytest.approx(seconds)
    assert talk.answer.status == 408
    assert not upstream.asked


async def test_a_route_that_uses_no_body_ignores_the_body(autojump_clock: MockClock) -> None:
    app, _ = gateway(
        {"path": "/r", "methods": ["POST"], "calls": {"part": {"upstream": "up", "path": "/"}}}, up=says(1)
    )
    async with living(app):
        assert (await ask(app, "POST", "/r", body=b"{", headers=[("content-type", "text/odd")])).status == 200


async def test_a_missing_json_body_is_a_400_that_says_so(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, _ = posting("json", upstream)
    async with living(app):
        answer = await ask(app, "POST", "/r", headers=[("content-length", "0")])
        unsaid = await ask(app, "POST", "/r")
    assert (answer.status, unsaid.status) == (400, 400)
    assert "missing" in answer.json["detail"]
    assert not upstream.asked


def test_a_content_type_that_is_too_long_is_refused() -> None:
    fields = RequestFields([(b"content-type", b"application/json" + b";a=b" * 300)])
    with pytest.raises(RequestError) as refused:
        check_media_type(fields, "json")
    assert refused.value.status == 415
