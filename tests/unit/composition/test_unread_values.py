"""Values that nothing reads: which they are, and that they go into the answer as they came."""

from __future__ import annotations

import json

import httpx
import msgspec
import pytest
import trio

from tests.support.composition.composing import Scripted, calls, facts, plan
from tests.support.logs.records import Records
from umbel.composition.json_check import CHECK_MIN
from umbel.composition.plan_run import run
from umbel.core.failure_kinds import Kind
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs

UNREAD = {"a": True, "b": True}


def unread(text: str) -> dict[str, bool]:
    return {call.name: call.rules.unread for call in plan(text).calls}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (calls("ab"), UNREAD),
        ('combine = "first"\n' + calls("ab"), UNREAD),
        ('answer.shape = "{id: a.id}"\n' + calls("ab"), {"a": False, "b": True}),
        ('answer.headers.x-id = "{b.id}"\n' + calls("ab"), {"a": True, "b": False}),
        ("stream = true\n" + calls("ab"), {"a": False, "b": False}),
        (calls("ab", b='when = "a.ok"'), {"a": False, "b": True}),
        (calls("ab", b='params.id = "a.id"'), {"a": False, "b": True}),
        (calls("ab", b='json.id = "a.id"\nmethod = "POST"'), {"a": False, "b": True}),
        (calls("ab", b='each = "a.ids"'), {"a": False, "b": True}),
    ],
)
def test_a_value_is_unread_if_neither_a_call_nor_the_answer_names_it(text: str, expected: dict[str, bool]) -> None:
    assert unread(text) == expected


def test_each_upstream_of_a_split_has_the_mark() -> None:
    text = """
[upstreams.v1]
urls = ["http://127.0.0.1:1"]
[upstreams.v2]
urls = ["http://127.0.0.1:2"]
[[routes]]
path = "/r/<id>"
[routes.calls.x]
upstream = "v1"
path = "/x"
split = { v2 = "10%" }
"""
    (call,) = plan(text).calls
    assert call.split is not None
    variants = call.split.variants.values()
    assert variants
    assert all(variant.rules.unread for variant in variants)


async def answered(body: bytes, text: str = "") -> tuple[bytes, object]:
    """The encoded answer of a route with the call ``a``, and the kind of its failure."""

    async def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body)

    compiled = plan(text + calls("a"))
    callers = {"u": TransportCaller(Scripted(respond))}
    result = await run(compiled, Inputs(path={"id": "1"}), facts(), callers, Records())
    return msgspec.json.encode(result.answer), result.kind


def with_members(value: bytes) -> bytes:
    """An object with enough members to be worth a check, and with ``value`` in its last one."""
    return b"{" + b'"m": 1, ' * 40 + b'"v": ' + value + b"}"


BODY = with_members(b'1.50e1,\r\n "n": 2, "t": "\\u00e4"')


async def test_a_value_that_nothing_reads_keeps_its_text(autojump_clock: trio.abc.Clock) -> None:
    assert await answered(BODY) == (b'{"a":' + BODY + b"}", None)
    assert await answered(BODY, 'combine = "first"\n') == (BODY, None)


async def test_a_short_text_is_decoded_in_any_case(autojump_clock: trio.abc.Clock) -> None:
    short = b'{"n": 1' + b',"n": 1' * 20
    short += b" " * (CHECK_MIN - 1 - len(short)) + b"}"
    assert await answered(short) == (b'{"a":{"n":1}}', None)
    assert await answered(short + b" ") == (b'{"a":' + short + b" }", None)


@pytest.mark.parametrize("value", [[1.5] * 200, ["0f3a-77e1"] * 200, [{"text": "a b" * 20}] * 20])
async def test_a_text_of_few_members_is_decoded(value: object, autojump_clock: trio.abc.Clock) -> None:
    assert await answered(json.dumps(value).encode()) == (b'{"a":' + msgspec.json.encode(value) + b"}", None)


async def test_a_value_that_is_read_is_decoded_and_encoded(autojump_clock: trio.abc.Clock) -> None:
    encoded, _ = await answered(BODY, 'answer.shape = "{a: a}"\n')
    assert encoded == '{"a":{"m":1,"v":15.0,"n":2,"t":"ä"}}'.encode()


@pytest.mark.parametrize("body", [b"{", b'"\xff\xff"', b"[1e999]", b"[NaN]", b"[" * 201 + b"]" * 201, b"{} {}"])
async def test_a_body_that_cannot_be_decoded_fails_an_unread_call(body: bytes, autojump_clock: trio.abc.Clock) -> None:
    for each in (body, with_members(body)):
        assert (await answered(each))[1] is Kind.BAD_BODY


async def test_a_body_that_must_be_repaired_is_repaired(autojump_clock: trio.abc.Clock) -> None:
    assert await answered(b'\xef\xbb\xbf["\\ud800"]') == ('{"a":["\ufffd"]}'.encode(), None)
    assert await answered(b"") == (b'{"a":null}', None)
