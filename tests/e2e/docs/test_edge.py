"""docs/edge.md: each configuration is served, and each request that is shown gets the response that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateway.shown_exchanges import sections_of
from tests.support.gateway.shown_sections import check_section
from tests.support.process.processes import PROJECT
from tests.support.upstream.raw_server import response

DOC = (PROJECT / "docs" / "edge.md").read_text()
SECTIONS = sections_of(DOC)
ANSWERS: dict[str, bytes] = {
    "/catalog": response(json.dumps(list(range(1000))).encode(), b"Content-Type: application/json"),
    "/files/old": response(b"", b"Location: /files/new", status=b"301 Moved Permanently"),
    "/files/new": response(b'{"name": "new"}'),
    "/links/a": response(b"", b"Location: https://cdn.example/a?signature=1", status=b"302 Found"),
    "/articles/7": response(b"", b'ETag: "v3"', status=b"304 Not Modified"),
    "/events/orders": response(
        b"data: 1\n\ndata: 2\n\n", b"Content-Type: text/event-stream", b"Cache-Control: no-store"
    ),
    "/orders": response(b'{"id": 7}', b"Location: /orders/7", status=b"201 Created"),
    "/users/8": response(b'{"name": "Ada"}'),
}
"""Raw responses of the upstream to targets, in place of the JSON about the request."""


@pytest.mark.parametrize("name", SECTIONS)
async def test_each_request_of_a_section_gets_the_response_that_is_shown(name: str, tmp_path: Path) -> None:
    await check_section(SECTIONS[name], ANSWERS, tmp_path)
