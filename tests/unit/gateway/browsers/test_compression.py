"""Compression of responses: which are compressed and how, Vary, entity tags and 304, and the time of large bodies."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from quart import Response, request
from werkzeug.wrappers import Response as WerkzeugResponse

from tests.support.server.asgi import Answer, ask, conversation, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.config.schema.compress import Compress
from umbel.core.http.compressors import library
from umbel.gateway.browsers import compression
from umbel.gateway.browsers.compression import Compression, WholeResponse
from umbel.gateway.request.request_fields import RequestFields

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock

TEXT = {"items": [{"name": "Ada", "price": number} for number in range(100)]}
BODY = json.dumps({"part": TEXT}, separators=(",", ":")).encode()
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": lambda data: bytes(library("br").decompress(data)),
    "zstd": lambda data: bytes(library("zstd").decompress(data)),
}


def compressing(*routes: dict[str, Any], up: Any = None, **keys: Any) -> Any:
    return gateway(*(routes or (route(),)), up=up or says(TEXT), sections={"compress": keys})


async def get(app: Any, target: str = "/r", *headers: tuple[str, str], method: str = "GET") -> Answer:
    return await ask(app, method, target, headers=headers)


def accepting(coding: str) -> tuple[str, str]:
    return ("accept-encoding", coding)


def decoded(answer: Answer) -> bytes:
    return DECODERS[answer["content-encoding"]](answer.body)


def varies(answer: Answer) -> bool:
    return "accept-encoding" in ", ".join(answer.all("vary")).lower().split(", ")


@pytest.mark.parametrize("coding", DECODERS)
async def test_a_response_is_compressed_in_the_accepted_coding(coding: str, autojump_clock: MockClock) -> None:
    app, records = compressing()
    async with living(app):
        plain = await get(app)
        answer = await get(app, "/r", accepting(coding))
    assert not plain.all("content-encoding")
    assert plain.body == BODY
    assert decoded(answer) == BODY
    assert answer["content-length"] == str(len(answer.body))
    assert answer["content-type"] == "application/json"
    assert answer["vary"] == plain["vary"] == "Accept, Accept-Encoding"
    assert answer["etag"] == plain["etag"][:-1] + f'--{coding}"'
    assert [record.bytes_sent for record in records.requests] == [len(BODY), len(answer.body)]


async def test_the_servers_order_decides_where_the_client_likes_codings_equally(autojump_clock: MockClock) -> None:
    for algorithms in (["zstd", "br", "gzip"], ["br", "gzip"], ["gzip", "zstd"]):
        app, _ = compressing(algorithms=algorithms)
        async with living(app):
            answer = await get(app, "/r", accepting("gzip, deflate, br, zstd"))
        assert answer["content-encoding"] == algorithms[0]


async def test_no_response_is_compressed_without_the_table(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), up=says(TEXT))
    async with living(app):
        answer = await get(app, "/r", accepting("gzip"))
    assert (answer.body, answer.all("content-encoding"), varies(answer)) == (BODY, [], False)


async def test_a_route_with_compress_false_is_never_compressed(autojump_clock: MockClock) -> None:
    app, _ = compressing(route(compress=False), route("/other"))
    async with living(app):
        answer = await get(app, "/r", accepting("gzip"))
        other = await get(app, "/other", accepting("gzip"))
    assert (answer.body, answer.all("content-encoding"), varies(answer)) == (BODY, [], False)
    assert other["content-encoding"] == "gzip"


async def test_a_body_below_min_is_compressed_only_if_identity_is_refused(autojump_clock: MockClock) -> None:
    app, _ = compressing(up=says("x"))
    async with living(app):
        small = await get(app, "/r", accepting("gzip"))
        refused = await get(app, "/r", accepting("gzip, identity;q=0"))
        impossible = await get(app, "/r", accepting("identity;q=0"))
    assert not small.all("content-encoding")
    assert varies(small)
    assert (decoded(refused), varies(refused)) == (b'{"part":"x"}', True)
    assert (impossible.status, impossible.body) == (200, b'{"part":"x"}')


async def test_a_body_that_gets_larger_is_sent_as_it_is(autojump_clock: MockClock) -> None:
    app, _ = compressing(min="1B", up=says("x"))
    async with living(app):
        answer = await get(app, "/r", accepting("gzip"))
    assert (answer.body, answer.all("content-encoding"), varies(answer)) == (b'{"part":"x"}', [], True)
    assert not answer["etag"].endswith('--gzip"')


async def test_a_request_with_via_is_compressed_only_with_proxied(autojump_clock: MockClock) -> None:
    for proxied in (False, True):
        app, _ = compressing(proxied=proxied)
        async with living(app):
            answer = await get(app, "/r", accepting("gzip"), ("via", "1.1 cdn"))
        assert bool(answer.all("content-encoding")) is proxied
        assert varies(answer)


async def test_problem_documents_are_compressed(autojump_clock: MockClock) -> None:
    app, _ = compressing(min="1B", up=says(TEXT, status=500))
    async with living(app):
        failed = await get(app, "/r", accepting("gzip, identity;q=0"))
        unknown = await get(app, "/unknown", accepting("gzip, identity;q=0"))
    for answer, status in ((failed, 502), (unknown, 404)):
        assert answer.status == status
        assert answer["content-type"] == "application/problem+json"
        assert json.loads(decoded(answer))["status"] == status
        assert varies(answer)


async def test_the_content_of_a_respond_is_compressed_once_per_coding(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    compressed: list[bytes] = []
    static = {"path": "/s", "respond": {"text": "static " * 500}, "query": {"n": {"type": "int"}}}
    app, _ = compressing(static)
    compressors = app.gateway_context.compression._compressors
    for coding, compress in [*compressors.items()]:
        monkeypatch.setitem(compressors, coding, lambda body, use=compress: compressed.append(body) or use(body))
    async with living(app):
        for number in range(3):
            for coding in DECODERS:
                answer = await get(app, f"/s?n={number}", accepting(coding))
                assert decoded(answer) == b"static " * 500
                head = await get(app, "/s", accepting(coding), method="HEAD")
                assert head["content-length"] == str(len(answer.body))
        assert compressed == [b"static " * 500] * len(DECODERS)
        refused = await get(app, "/s?n=x", accepting("gzip, identity;q=0"))
        assert (refused.status, json.loads(decoded(refused))["status"]) == (400, 400)


async def test_a_stream_is_not_compressed(autojump_clock: MockClock) -> None:
    app, _ = compressing(route(stream=True))
    async with living(app):
        answer = await get(app, "/r", accepting("gzip, identity;q=0"))
    assert answer["content-type"] == "application/x-ndjson"
    assert not answer.all("content-encoding")
    assert json.loads(answer.body.splitlines()[-1])


async def test_no_transform_of_an_upstream_holds_for_the_answer(autojump_clock: MockClock) -> None:
    app, _ = compressing(up=says(TEXT, headers={"cache-control": "max-age=5, no-transform"}))
    async with living(app):
        answer = await get(app, "/r", accepting("gzip"))
    assert (answer.body, answer.all("content-encoding"), varies(answer)) == (BODY, [], False)


# Entity tags.


async def test_if_none_match_with_the_tag_of_an_accepted_coding_is_answered_with_304(autojump_clock: MockClock) -> None:
    app, _ = compressing()
    async with living(app):
        for method in ("GET", "HEAD"):
            for coding in DECODERS:
                tag = (await get(app, "/r", accepting(coding)))["etag"]
                for condition in (tag, f"W/{tag}", f'"other", {tag}'):
                    wishes = accepting(f"zstd, {coding}"), ("if-none-match", condition)
                    answer = await get(app, "/r", *wishes, method=method)
                    assert (answer.status, answer.body, answer["etag"]) == (304, b"", tag)
                    assert varies(answer)
                    for name in ("content-encoding", "content-type", "content-length"):
                        assert not answer.all(name)


async def test_if_none_match_with_the_plain_tag_is_answered_with_304_in_any_coding(autojump_clock: MockClock) -> None:
    app, _ = compressing()
    async with living(app):
        tag = (await get(app))["etag"]
        answer = await get(app, "/r", accepting("gzip"), ("if-none-match", tag))
    assert (answer.status, answer["etag"], varies(answer)) == (304, tag, True)


async def test_the_tag_of_a_coding_that_is_not_accepted_now_is_no_304(autojump_clock: MockClock) -> None:
    app, _ = compressing()
    async with living(app):
        tag = (await get(app, "/r", accepting("gzip")))["etag"]
        for wish in ("br", "gzip;q=0", "identity"):
            answer = await get(app, "/r", accepting(wish), ("if-none-match", tag))
            assert answer.status == 200
        assert (await get(app, "/r", accepting("gzip"), ("if-none-match", '"x--gzip"'))).status == 200


async def test_head_has_the_fields_of_get(autojump_clock: MockClock) -> None:
    app, _ = compressing()
    async with living(app):
        got = await get(app, "/r", accepting("gzip"))
        asked = await get(app, "/r", accepting("gzip"), method="HEAD")
    names = ("content-encoding", "content-length", "content-type", "etag", "vary")
    assert [asked[name] for name in names] == [got[name] for name in names]
    assert asked.body == b""


VALIDATED = {"path": "/v", "calls": {"part": {"upstream": "up", "path": "/", "forward_headers": ["if-none-match"]}}}


async def test_an_upstream_gets_its_own_tags_and_its_304_names_the_clients(autojump_clock: MockClock) -> None:
    def validating(request: httpx.Request) -> httpx.Response:
        if request.headers.get("if-none-match") == '"v1"':
            return httpx.Response(304, headers={"etag": '"v1"'})
        return httpx.Response(200, json=TEXT, headers={"etag": '"v1"'})

    upstream = Function(validating)
    app, _ = compressing(VALIDATED, up=upstream)
    async with living(app):
        answer = await get(app, "/v", accepting("br"))
        assert (answer["etag"], answer["content-encoding"]) == ('"v1--br"', "br")
        again = await get(app, "/v", accepting("br"), ("if-none-match", '"v1--br"'))
        assert upstream.asked[-1].headers["if-none-match"] == '"v1"'
        assert (again.status, again["etag"], varies(again)) == (304, '"v1--br"', True)
        other = await get(app, "/v", accepting("gzip"), ("if-none-match", '"v1--br"'))
        assert upstream.asked[-1].headers["if-none-match"] == '"v1--br"'
        assert (other.status, other["etag"]) == (200, '"v1--gzip"')
        plain = await get(app, "/v", accepting("gzip"), ("if-none-match", '"v1"'))
        assert (plain.status, plain["etag"]) == (304, '"v1"')


async def test_if_match_of_a_change_names_the_upstreams_tag(autojump_clock: MockClock) -> None:
    upstream = Function(says({"a": 1}))
    call = {"upstream": "up", "path": "/", "method": "PUT", "json": "body", "forward_headers": ["if-match"]}
    app, _ = compressing({"path": "/v", "methods": ["PUT"], "calls": {"part": call}}, up=upstream)
    headers = [("content-type", "application/json"), ("if-match", '"v1--zstd", "v2--other", "v3-gzip"')]
    async with living(app):
        assert (await ask(app, "PUT", "/v", body=b"{}", headers=headers)).status == 200
    assert upstream.asked[0].headers["if-match"] == '"v1", "v2--other", "v3-gzip"'


async def test_if_match_names_the_tag_of_a_coding_that_is_not_configured_any_more(autojump_clock: MockClock) -> None:
    upstream = Function(says({"a": 1}))
    call = {"upstream": "up", "path": "/", "forward_headers": ["if-match"]}
    app, _ = compressing({"path": "/v", "calls": {"part": call}}, up=upstream, algorithms=["gzip"])
    async with living(app):
        await get(app, "/v", ("if-match", '"v1--zstd"'))
    assert upstream.asked[0].headers["if-match"] == '"v1"'


# Other responses of an application.


@pytest.mark.parametrize("hooks", [False, True])
async def test_a_view_and_a_handler_recognize_their_own_tags(hooks: bool, autojump_clock: MockClock) -> None:
    app, _ = compressing()
    if hooks:
        app.before_request(_view(lambda: None))

    async def view() -> Any:
        response = Response(LONG)
        response.set_etag("t1")
        return await response.make_conditional(request)

    async def composed(_: Any) -> Any:
        return LONG if request.if_match.contains("t1") else None, 200, {"etag": '"t1"'}

    app.add_url_rule("/view", "view", view)
    app.compose("/h", methods=["PUT"])(composed)
    app.compose("/own", methods=["PUT"], compress=False, endpoint="own")(composed)
    async with living(app):
        tag = (await get(app, "/view", accepting("gzip")))["etag"]
        assert tag == '"t1--gzip"'
        again = await get(app, "/view", accepting("gzip"), ("if-none-match", tag))
        assert (again.status, again["etag"], varies(again)) == (304, tag, True)
        for target, method in (("/view", "GET"), ("/h", "PUT"), ("/own", "PUT")):
            for condition in (tag, f'"other", {tag}'):
                answer = await get(app, target, ("if-match", condition), method=method)
                assert (answer.status, LONG in answer.body.decode()) == (200, True)
        assert (await get(app, "/view", ("if-match", '"t2--gzip"'))).status == 412


PARTS = {
    "a text": ({"content-type": "text/css", "content-range": "bytes 0-1/2"}, True),
    "several parts": ({"content-type": "multipart/byteranges; boundary=x"}, True),
    "an image": ({"content-type": "image/png", "content-range": "bytes 0-1/2"}, False),
    "a coding": ({"content-type": "text/css", "content-encoding": "x"}, False),
}


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_has_the_vary_of_the_whole_and_no_coding(name: str, autojump_clock: MockClock) -> None:
    app, _ = compressing()
    fields, is_compressible = PARTS[name]
    app.add_url_rule("/view", "view", _view(lambda: Response(LONG, 206, {**fields, "etag": '"t1"'})))
    async with living(app):
        answer = await get(app, "/view", accepting("br"))
    assert (varies(answer), answer["etag"], answer.body) == (is_compressible, '"t1"', LONG.encode())


async def test_a_304_for_a_media_type_that_is_not_compressed_has_no_vary(autojump_clock: MockClock) -> None:
    image = {"text": LONG, "headers": {"content-type": "image/png"}}
    app, _ = compressing({"path": "/image", "respond": image}, {"path": "/text", "respond": {"text": LONG}})

    async def view() -> Any:
        response = Response(LONG, content_type="image/png")
        response.set_etag("t1")
        return await response.make_conditional(request)

    app.add_url_rule("/view", "view", view)
    async with living(app):
        for target, varied in (("/image", False), ("/text", True), ("/view", False)):
            whole = await get(app, target)
            unchanged = await get(app, target, ("if-none-match", whole["etag"]))
            assert (unchanged.status, varies(whole), varies(unchanged)) == (304, varied, varied)


async def test_a_handlers_response_is_compressed(autojump_clock: MockClock) -> None:
    app, _ = compressing()

    @app.compose("/h")
    async def composed(_: Any) -> Any:
        return TEXT, 201, {"vary": "x", "etag": '"own"'}

    @app.compose("/secret", compress=False)
    async def secret(_: Any) -> Any:
        return TEXT

    async with living(app):
        answer = await get(app, "/h", accepting("gzip"))
        hidden = await get(app, "/secret", accepting("gzip"))
    assert (answer.status, json.loads(decoded(answer)), answer["etag"]) == (201, TEXT, '"own--gzip"')
    assert answer["vary"] == "Accept, X, Accept-Encoding"
    assert (hidden.json, varies(hidden)) == (TEXT, False)


LONG = "umbel " * 1000
VIEWS: dict[str, tuple[Callable[[], Any], bool]] = {
    "a text": (lambda: LONG, True),
    "an object": (lambda: {"text": LONG}, True),
    "a Quart response": (lambda: Response(LONG, 404, {"content-type": "text/css"}), True),
    "a werkzeug response": (lambda: WerkzeugResponse(LONG, mimetype="text/plain"), True),
    "another media type": (lambda: Response(LONG, 200, {"content-type": "image/png"}), False),
    "no-transform": (lambda: Response(LONG, 200, {"cache-control": "max-age=1, No-Transform"}), False),
    "a coding": (lambda: Response(LONG, 200, {"content-encoding": "x"}), False),
    "a digest": (lambda: Response(LONG, 200, {"repr-digest": "sha-256=:a:"}), False),
    "no content": (lambda: Response("", 200), False),
    "parts": (lambda: Response((part async for part in _parts()), 200), False),
}


async def _parts() -> Any:
    yield LONG.encode()


@pytest.mark.parametrize("name", VIEWS)
async def test_an_ordinary_view_is_compressed_if_its_response_permits(name: str, autojump_clock: MockClock) -> None:
    app, _ = compressing()
    make, is_compressed = VIEWS[name]
    app.add_url_rule("/view", "view", _view(make))
    async with living(app):
        answer = await get(app, "/view", accepting("br"))
        head = await get(app, "/view", accepting("br"), method="HEAD")
    assert varies(answer) == varies(head) == is_compressed
    assert (answer.all("content-encoding") == ["br"]) is is_compressed
    assert answer.all("content-length") == head.all("content-length")
    if is_compressed:
        assert LONG.encode() in decoded(answer)


def _view(make: Callable[[], Any]) -> Callable[[], Any]:
    async def view() -> Any:
        return make()

    return view


async def test_a_weak_tag_stays_and_accept_ranges_is_removed(autojump_clock: MockClock) -> None:
    app, _ = compressing()
    fields = {"etag": 'W/"a"', "accept-ranges": "bytes", "vary": "*"}
    app.add_url_rule("/view", "view", _view(lambda: Response(LONG, 200, fields)))
    async with living(app):
        answer = await get(app, "/view", accepting("br"))
    assert (answer["etag"], answer.all("accept-ranges"), answer["vary"]) == ('W/"a"', [], "*")
    assert answer["content-encoding"] == "br"


# Large bodies.


async def test_a_large_body_is_compressed_in_a_thread_while_the_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "INLINE_MAX", 1000)
    threads: list[str] = []
    run_sync = trio.to_thread.run_sync

    async def noted(function: Any, *args: Any, **options: Any) -> Any:
        threads.append(f"{options['limiter'].total_tokens} {options['abandon_on_cancel']}")
        return await run_sync(function, *args, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", noted)
    app, _ = compressing()
    async with living(app):
        for coding in DECODERS:
            assert decoded(await get(app, "/r", accepting(coding))) == BODY
    assert threads == [f"{compression.THREADS_MAX} True"] * 3


async def test_a_cancel_abandons_the_thread_which_holds_its_place_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def blocking(_: bytes) -> bytes:
        began.set()
        may_end.wait(10)
        return b""

    app, records = compressing()
    monkeypatch.setattr(compression, "INLINE_MAX", 1000)
    monkeypatch.setattr(compression, "make_compressor", lambda _: blocking)
    async with living(app):
        try:
            async with conversation(app, target="/r", headers=[accepting("gzip")]) as talk:
                await trio.to_thread.run_sync(began.wait)
                talk._cancel_scope.cancel(reason="the test")
            limiter = compression._threads.get()
            assert limiter is not None
            assert (talk.answer.status, len(records.requests), limiter.borrowed_tokens) == (None, 1, 1)
        finally:
            may_end.set()
        with trio.fail_after(10):
            while limiter.borrowed_tokens:
                await trio.testing.wait_all_tasks_blocked(0.001)


async def test_bodies_one_after_the_other_do_not_depend_on_each_other() -> None:
    pressed = Compression(Compress())
    for coding in ("zstd", "br", "gzip"):
        asked = RequestFields([(b"accept-encoding", coding.encode())])
        coded = []
        for body in (b"a" * 2000, b"b" * 3000, b"a" * 2000):
            whole = WholeResponse(200, [(b"content-type", b"text/plain")], body)
            coded.append((await pressed.apply(asked, "GET", whole)).body)
            assert DECODERS[coding](coded[-1]) == body
        assert coded[0] == coded[2]


def test_types_are_exact_or_have_a_star_in_the_subtype() -> None:
    pressed = Compression(Compress(types=("text/*", "application/*+json", "image/svg+xml")))
    for fits in (b"text/html; charset=utf-8", b"TEXT/x", b"application/problem+json", b"image/svg+xml"):
        assert pressed.has_type(fits)
    for other in (b"", b"text", b"text/", b"application/json", b"application/+json", b"image/svg", b"video/text/x"):
        assert not pressed.has_type(other)
