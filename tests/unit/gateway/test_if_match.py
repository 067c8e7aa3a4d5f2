"""If-Match: it is compared with the ETag of an answer, or a change with it is refused (decision 0039)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tests.support.server.asgi import ask, living

from .gateways import gateway

pytestmark = pytest.mark.usefixtures("way")

MockClock = trio.testing.MockClock
CALL = {"upstream": "up", "path": "/"}
CHANGE: dict[str, Any] = {"methods": ["GET", "PUT", "DELETE"], "calls": {"part": {**CALL, "method": "PUT"}}}
ROUTES: list[dict[str, Any]] = [
    {"path": "/get", "calls": {"part": CALL}},
    {"path": "/untagged", "calls": {"part": CALL}, "answer": {"etag": False}},
    {"path": "/static", "methods": ["GET", "PUT"], "respond": {"text": "static " * 99}},
    {"path": "/moved", "redirect": {"to": "/get"}},
    {"path": "/change", **CHANGE},
    {"path": "/body", "methods": ["PUT"], "calls": {"part": {**CALL, "method": "PUT", "json": "body"}}},
    {
        "path": "/forwarded",
        "methods": ["PUT"],
        "calls": {"part": {**CALL, "method": "PUT", "forward_headers": ["if-match"]}},
    },
    {
        "path": "/read",
        "methods": ["PUT"],
        "calls": {"part": {**CALL, "method": "PUT", "json": {"version": "headers.if_match"}}},
    },
]


class Upstream:
    """Answers each request, and counts them."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200, json=["answer"] * 99)


@pytest.mark.parametrize("sections", [{}, {"compress": {"min": "1B"}}])
async def test_if_match_of_a_get_is_compared_with_the_etag(sections: Any, autojump_clock: MockClock) -> None:
    app, _ = gateway(*ROUTES, up=Upstream(), sections=sections)
    async with living(app):
        for target in ("/get", "/static"):
            for accept in ("identity", "gzip") if sections else ("identity",):
                tag = (await ask(app, "GET", target, headers=[("accept-encoding", accept)]))["etag"]
                for method in ("GET", "HEAD"):
                    for value, status in (
                        (tag, 200),
                        (f'"other", {tag}', 200),
                        ("*", 200),
                        ('"other"', 412),
                        (f"W/{tag}", 412),
                        ("", 412),
                        ("odd", 412),
                    ):
                        headers = [("if-match", value), ("accept-encoding", accept)]
                        answer = await ask(app, method, target, headers=headers)
                        assert answer.status == status, (target, method, value)
        both = [("if-match", tag), ("if-none-match", tag), ("accept-encoding", accept)]
        assert (await ask(app, "GET", "/static", headers=both)).status == 304
        for target, status in (("/untagged", 200), ("/moved", 308)):
            assert (await ask(app, "GET", target, headers=[("if-match", '"other"')])).status == status
        unmodified = [("if-unmodified-since", "Sat, 01 Jan 2000 00:00:00 GMT")]
        assert (await ask(app, "GET", "/get", headers=unmodified)).status == 200


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", "/change", 412),
        ("DELETE", "/change", 412),
        ("PUT", "/body", 412),
        ("PUT", "/static", 200),
        ("PUT", "/forwarded", 200),
        ("PUT", "/read", 200),
    ],
)
async def test_a_change_with_if_match_is_refused_unless_a_call_takes_it(
    method: str, target: str, status: int, autojump_clock: MockClock
) -> None:
    upstream = Upstream()
    app, records = gateway(*ROUTES, up=upstream)
    async with living(app):
        headers = [("content-type", "application/json"), ("if-match", "*")]
        answer = await ask(app, method, target, headers=headers, body=b"{}")
    assert answer.status == status
    assert upstream.asked == (status == 200 and target != "/static")
    (record,) = records.requests
    assert (record.status, record.completed) == (status, None if not upstream.asked else True)
