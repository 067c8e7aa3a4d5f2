"""docs/limits.md: each recipe is served, and each request that is shown gets the response that is shown."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.support.gateway.shown_exchanges import ask, check_reply, exchanges, sections_of
from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel

RECIPES = {
    n: text for n, text in sections_of((PROJECT / "docs" / "limits.md").read_text()).items() if "*Recipe.*" in text
}
UPSTREAM = "http://127.0.0.1:9001"
"""The address of the upstream in the recipes."""


async def upstream(peer: Peer) -> None:
    while (await peer.read_request())[0]:
        await peer.send(response(b"{}", b"Content-Type: application/json"))


def test_the_page_has_recipes() -> None:
    assert len(RECIPES) == 3


@pytest.mark.parametrize("name", RECIPES)
async def test_each_request_of_a_recipe_gets_the_response_that_is_shown(name: str, tmp_path: Path) -> None:
    (config,) = re.findall(r"```toml\n(.*?)```", RECIPES[name], re.DOTALL)
    digests = {key: hashlib.sha256(key.encode()).hexdigest() for key in ("uk_acme", "uk_other")}
    keys = [f'[[keys]]\nid = "{key}"\nsha256 = "{digest}"\n' for key, digest in digests.items()]
    (tmp_path / "keys.toml").write_text("".join(keys))
    async with raw_server(upstream) as server:
        (tmp_path / "umbel.toml").write_text(config.replace(UPSTREAM, f"http://127.0.0.1:{int(server)}"))
        async with serving(Umbel.from_file(tmp_path / "umbel.toml")) as port:
            for exchange in exchanges(RECIPES[name]):
                check_reply(exchange, await ask(port, exchange))
