"""docs/howto.md: each configuration is served, and each request that is shown gets the response that is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.shown_exchanges import sections_of
from tests.support.gateway.shown_sections import check_section
from tests.support.process.processes import PROJECT
from tests.support.upstream.raw_server import response

SECTIONS = sections_of((PROJECT / "docs" / "howto.md").read_text())
NEXT = b'Link: </orders?page=3>; rel="next"'
ANSWERS = {
    "/orders?page=2&size=50": response(b'{"orders": [53, 54]}', NEXT),
    "/orders?page=1&size=50": response(b'{"orders": [51, 52]}'),
    "/items/dill": response(b'{"title": "Dill seed"}', b"Cache-Control: public, max-age=3600"),
    "/stock/dill": response(b"12", b"Cache-Control: public, max-age=10"),
    "/users/7": response(b'{"name": "Ada", "mail": "ada@example.com"}'),
    "/orders/7?limit=2": response(b"[1, 2]"),
}


@pytest.mark.parametrize("name", SECTIONS)
async def test_each_request_of_a_section_gets_the_response_that_is_shown(name: str, tmp_path: Path) -> None:
    await check_section(SECTIONS[name], ANSWERS, tmp_path)
