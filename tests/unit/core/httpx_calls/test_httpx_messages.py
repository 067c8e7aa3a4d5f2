"""httpx messages made without httpx's normalisation equal those that httpx's constructors make."""

from __future__ import annotations

import pickle

import httpx
import pytest
import trio

from umbel.core.httpx_calls.httpx_messages import CompleteResponse, fields_of, headers_of, request_of, response_fields

FIELDS = [(b"Set-Cookie", b"set-cookie", b"a=1"), (b"SET-COOKIE", b"set-cookie", b"b=2"), (b"X-N", b"x-n", b"\xe4")]
EXTENSIONS = {"http_version": b"HTTP/1.1", "reason_phrase": b"OK"}


def complete(content: bytes = b"body") -> CompleteResponse:
    return CompleteResponse(200, list(FIELDS), content, dict(EXTENSIONS), 1.5)


async def httpxs_own(content: bytes = b"body") -> httpx.Response:
    """The same response, made by httpx and read by its client."""
    raw = [(name, value) for name, _, value in FIELDS]
    response = httpx.Response(200, headers=raw, stream=httpx.ByteStream(content), extensions=EXTENSIONS)
    await response.aread()
    return response


def test_headers_equal_those_that_httpx_makes_of_the_same_fields() -> None:
    raw = [(name, value) for name, _, value in FIELDS]
    ours, theirs = headers_of(list(FIELDS)), httpx.Headers(raw)
    assert vars(ours) == vars(theirs)
    assert (ours, ours.raw, ours.encoding) == (theirs, theirs.raw, theirs.encoding)
    assert fields_of(theirs) == FIELDS


async def test_a_complete_response_has_the_state_of_a_read_response() -> None:
    ours, theirs = complete(), await httpxs_own()
    names = set(vars(theirs)) | {"_elapsed"}
    for name in names - {"stream", "_elapsed", "_decoder"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert set(vars(ours)) <= names | {"_seconds", "fields"}, "an attribute that httpx knows nothing of"


@pytest.mark.parametrize("content", [b"", b"body"])
async def test_a_complete_response_can_be_read_in_every_way(content: bytes) -> None:
    assert complete(content).content == content
    assert await complete(content).aread() == content
    assert complete(content).text == content.decode()
    assert b"".join([piece async for piece in complete(content).aiter_raw()]) == content
    assert [piece async for piece in complete(content).aiter_bytes(3)] == [
        content[i : i + 3] for i in (0, 3) if content
    ]
    response = complete(content)
    await response.aclose()
    assert response.is_closed


def test_a_complete_response_has_its_elapsed_time_and_can_be_pickled() -> None:
    response = complete()
    assert response.elapsed.total_seconds() == 1.5
    assert pickle.loads(pickle.dumps(response)).content == b"body"  # our own bytes


@pytest.mark.parametrize("how", ["get", "stream"])
async def test_an_httpx_client_treats_a_complete_response_like_its_own(how: str) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        return complete(b'{"a": 1}')

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        if how == "get":
            response = await client.get("http://x/")
        else:
            async with client.stream("GET", "http://x/") as response:
                await response.aread()
        assert response.json() == {"a": 1}
        assert response.request.url == "http://x/"
        assert response.is_closed
        assert response.elapsed.total_seconds() == 1.5
        assert client.cookies["b"] == "2"


def test_response_fields_include_later_changes_of_the_headers() -> None:
    ours = complete()
    assert response_fields(ours) == FIELDS
    ours.headers["x-n"] = "1"
    assert response_fields(ours) == fields_of(ours.headers) != FIELDS


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("content", [None, b"", b"a body"])
async def test_a_request_equals_that_which_httpx_makes_of_the_same_parts(method: str, content: bytes | None) -> None:
    ours = request_of(method, FIELDS, content, dict(EXTENSIONS), url=httpx.URL("http://upstream"))
    raw = [(name, value) for name, _, value in FIELDS]
    theirs = httpx.Request(method, "http://upstream", headers=raw, content=content, extensions=dict(EXTENSIONS))
    assert set(vars(ours)) == set(vars(theirs))
    assert (ours.method, ours.url, ours.extensions) == (theirs.method, theirs.url, theirs.extensions)
    assert sorted(ours.headers.raw) == sorted(theirs.headers.raw)
    assert ours.read() == theirs.read() == await ours.aread() == ours.content
    assert b"".join([piece async for piece in ours.stream]) == (content or b"")
