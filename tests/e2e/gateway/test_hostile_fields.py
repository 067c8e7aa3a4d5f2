"""Response fields of an upstream with invalid values: the client gets its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.program import route, running, up
from tests.support.upstream.raw_server import Peer, raw_server

FIELDS: dict[str, tuple[bytes, bytes, int]] = {
    "a lifetime of 5000 digits": (b"200 OK", b"Cache-Control: max-age=" + b"9" * 5000, 200),
    "an age of 5000 digits": (b"200 OK", b"Cache-Control: max-age=9\r\nAge: " + b"9" * 5000, 200),
    "a Retry-After that is no latin-1": (b"429 Slow", "Retry-After: \u20ac".encode(), 429),
    "a Content-Type that is no latin-1": (b"429 Slow", "Content-Type: \u20ac".encode(), 429),
}


@pytest.mark.parametrize("case", FIELDS.values(), ids=FIELDS)
async def test_no_response_field_causes_an_error(case: tuple[bytes, bytes, int], tmp_path: Path) -> None:
    status, fields, expected = case

    async def answer(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(b'HTTP/1.1 %b\r\nContent-Length: 3\r\n%b\r\n\r\n"x"' % (status, fields))

    call = "pass_status = [429]\npass_body = true"
    async with raw_server(answer) as upstream, running(tmp_path, up(upstream) + route(call=call)) as program:
        reply, _ = await program.ask("/r")
    assert reply.status == expected
    assert [line for line in program.lines("app") if line["level"] == "error"] == []
