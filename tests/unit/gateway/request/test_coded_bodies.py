"""Request bodies with Content-Encoding: decoded within the limit and a ratio of 100, refused, or passed on."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import quart
import trio

from tests.support.server.asgi import Answer, ask, conversation, living
from tests.unit.gateway.gateways import Function, gateway, says
from umbel.core.errors import RequestError
from umbel.core.http.compressors import library
from umbel.core.http.decompression import DecodedCoding
from umbel.gateway.request import request_body
from umbel.gateway.request.request_body import read_coded_body

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: bytes(library("zstd").compress(data)),
    "br": lambda data: bytes(library("br").compress(data)),
}
VALUE = {"items": [random.Random(1).randbytes(8).hex() for _ in range(50)]}
BODY = json.dumps(VALUE).encode()


class Parts:
    """A body that comes in parts of one size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._left = [data[start : start + size] for start in range(0, len(data), size)]

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


def echoing(upstream: Function, form: str = "json", call: dict[str, Any] | None = None, **keys: Any) -> Any:
    calls = {"part": {"upstream": "up", "path": "/", **(call or {"json": "{got: body}"})}}
    return gateway({"path": "/r", "calls": calls, "body": form, **keys}, up=upstream)[0]


def fields(coding: str, media: str = "application/json", **more: str) -> list[tuple[str, str]]:
    return [("content-type", media), ("content-encoding", coding), *more.items()]


async def post(app: Any, body: bytes, headers: list[tuple[str, str]]) -> Answer:
    """Post a body with its length."""
    return await ask(app, "POST", "/r", body=body, headers=[*headers, ("content-length", str(len(body)))])


@pytest.mark.parametrize("coding", ENCODERS)
async def test_a_coded_json_body_is_decoded(coding: str, autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app = echoing(upstream)
    coded = ENCODERS[coding](BODY)
    async with living(app):
        assert (await post(app, coded, fields(coding.upper()))).status == 200
        async with conversation(app, "POST", "/r", headers=fields(coding)) as talk:
            for start in range(0, len(coded), 100):
                await talk.body(coded[start : start + 100], more=True)
            await talk.body(b"")
        assert talk.answer.status == 200
    for request in upstream.asked:
        assert json.loads(request.content) == {"got": VALUE}
        assert "content-encoding" not in request.headers


async def test_a_coded_form_is_decoded(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app = echoing(upstream, "form")
    async with living(app):
        answer = await post(app, gzip.compress(b"a=1&b=2"), fields("gzip", "application/x-www-form-urlencoded"))
    assert answer.status == 200
    assert upstream.asked[0].content == b'{"got":{"a":"1","b":"2"}}'


async def test_a_decoded_body_is_forwarded_without_its_coding(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    call = {"method": "POST", "forward_body": True, "forward_headers": ["content-encoding"]}
    app = echoing(upstream, "json", {**call, "when": "body.items"})
    async with living(app):
        assert (await post(app, gzip.compress(BODY), fields("gzip"))).status == 200
    assert upstream.asked[0].content == BODY
    assert upstream.asked[0].headers["content-length"] == str(len(BODY))
    assert "content-encoding" not in upstream.asked[0].headers


async def test_a_body_of_bytes_is_passed_on_in_any_coding(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app = echoing(upstream, "bytes", {"method": "POST", "forward_body": True})
    bomb = gzip.compress(bytes(10_000_000))
    async with living(app):
        for coding in ("gzip", "compress", "gzip, br"):
            assert (await post(app, bomb, fields(coding))).status == 200
            assert upstream.asked[-1].content == bomb
            assert upstream.asked[-1].headers["content-encoding"] == coding


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "br, gzip", "identity, aes128gcm", "gzip," * 500])
async def test_an_unknown_coding_or_several_are_a_415_that_names_the_known_ones(
    coding: str, autojump_clock: MockClock
) -> None:
    upstream = Function(says(1))
    app = echoing(upstream)
    async with living(app):
        answer = await post(app, b"{}", fields(coding))
    assert (answer.status, answer["accept-encoding"]) == (415, "gzip, deflate, zstd, br")
    assert not upstream.asked


async def test_a_coding_whose_library_is_missing_is_a_415(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "is_available", lambda coding: coding not in ("zstd", "br"))
    app = echoing(Function(says(1)))
    async with living(app):
        answer = await post(app, b"{}", fields("br"))
    assert (answer.status, answer["accept-encoding"]) == (415, "gzip, deflate")


def _spaces(count: int) -> bytes:
    return b" " * count + b"1"


BAD: dict[str, tuple[bytes, int]] = {
    "nonsense": (b"nonsense", 400),
    "a truncated body": (gzip.compress(BODY)[:-1], 400),
    "bytes behind the body": (gzip.compress(BODY) + b"x", 400),
    "a ratio above 100": (gzip.compress(_spaces(20_000)), 413),
    "a ratio above 100 and a size above the limit": (gzip.compress(_spaces(5_000_000)), 413),
    "a decoded size above the limit": (gzip.compress(b'"' + random.Random(1).randbytes(6000).hex().encode()), 413),
    "a coded size above the limit": (gzip.compress(random.Random(1).randbytes(90_000), 0), 413),
    "many empty members": (gzip.compress(b"") * 65, 400),
    "gzip within gzip": (gzip.compress(gzip.compress(BODY)), 400),
}


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("name", BAD)
async def test_a_broken_or_too_large_body_is_refused(name: str, has_length: bool, autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app = echoing(upstream, max_body="10KB")
    body, status = BAD[name]
    async with living(app):
        if has_length:
            answer = await post(app, body, fields("gzip"))
        else:
            chunked = [*fields("gzip"), ("transfer-encoding", "chunked")]
            answer = await ask(app, "POST", "/r", body=body, headers=chunked)
    assert answer.status == status
    assert answer["content-type"] == "application/problem+json"
    assert not upstream.asked


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br"])
async def test_the_ratio_is_that_of_the_whole_body_whatever_its_parts(coding: DecodedCoding) -> None:
    noise = random.Random(1).randbytes(3000)
    dense_at_first = ENCODERS[coding](bytes(100_000) + noise)
    dense = ENCODERS[coding](bytes(100_000))
    for size in (1, 1000, 10**6):
        for length in (None, len(dense_at_first)):
            decoded = await read_coded_body(Parts(dense_at_first, size), length, 10**6, coding)
            assert decoded == bytes(100_000) + noise
        for length in (None, len(dense)):
            with pytest.raises(RequestError) as refused:
                await read_coded_body(Parts(dense, size), length, 10**6, coding)
            assert refused.value.status == 413


async def test_other_tasks_run_while_a_large_body_is_decoded() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    coded = gzip.compress(bytes(9_000_000) + random.Random(1).randbytes(100_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await read_coded_body(Parts(coded, len(coded)), None, 10**7, "gzip")
        nursery.cancel_scope.cancel(reason="the test")
    assert turns >= 4


async def test_a_coded_body_without_a_byte_is_an_empty_body(autojump_clock: MockClock) -> None:
    app = echoing(Function(says(1)))
    async with living(app):
        answer = await post(app, b"", fields("gzip"))
    assert answer.status == 400
    assert "missing" in answer.json["detail"]


@pytest.mark.parametrize("body", [gzip.compress(BODY), b"\xff\xfe", b"{"], ids=["coded", "no UTF-8", "cut"])
async def test_json_that_a_view_or_handler_cannot_read_is_a_400(body: bytes, autojump_clock: MockClock) -> None:
    app, records = gateway(up=says(1))

    async def view() -> Any:
        return {"silent": await quart.request.get_json(silent=True), "value": await quart.request.get_json()}

    async def composed(_: Any) -> Any:
        return await quart.request.get_json()

    app.add_url_rule("/view", "view", view, methods=["POST"])
    app.compose("/h", methods=["POST"])(composed)
    async with living(app):
        for target in ("/view", "/h"):
            answer = await ask(app, "POST", target, body=body, headers=[("content-type", "application/json")])
            assert answer.status == 400
    assert not records.logged
