"""The cache of docs/howto.md: nginx in front of Umbel, with the directives that the document shows."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.external.nginx.server import nginx
from tests.support.gateway.shown_exchanges import sections_of
from tests.support.gateway.shown_sections import UPSTREAM, configuration_of
from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel

SECTION = sections_of((PROJECT / "docs" / "howto.md").read_text())["A cache"]


def directives() -> tuple[str, str]:
    """The directives that are shown: those outside of the server block, and those in it."""
    shown = re.search(r"```nginx\n(.*?)server \{\n(.*?)^\}\n```", SECTION, re.DOTALL | re.MULTILINE)
    assert shown is not None
    return shown[1], shown[2]


async def test_complete_pages_are_stored_and_partial_ones_are_not(tmp_path: Path) -> None:
    asked: list[bytes] = []
    stock_works = False

    async def upstream(peer: Peer) -> None:
        while head := await peer.read_head():
            asked.append(head.split(b" ")[1])
            answer = response(b"12", b"Cache-Control: public, max-age=10")
            await peer.send(answer if stock_works or b"/items" in asked[-1] else response(b"", status=b"500 Oops"))

    outside, inside = directives()
    async with raw_server(upstream) as server:
        text = configuration_of(SECTION).replace(UPSTREAM, f"http://127.0.0.1:{int(server)}")
        (tmp_path / "umbel.toml").write_text(text)
        async with (
            serving(Umbel.from_file(tmp_path / "umbel.toml")) as port,
            nginx(tmp_path / "nginx", http=outside, server=inside.replace(":8000", f":{port}")) as front,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{front}") as client,
        ):
            partial = [await client.get("/items/dill") for _ in range(2)]
            stock_works = True
            complete = [await client.get("/items/dill") for _ in range(3)]

    assert [page.headers["x-cache"] for page in partial + complete] == ["MISS", "MISS", "MISS", "HIT", "HIT"]
    assert [page.json()["stock"] for page in partial + complete] == [None, None, 12, 12, 12]
    assert asked.count(b"/items/dill") == 3
