"""docs/http.md: the tables have each field that is sent, and each kind of problem with its status."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.support.gateway.shown_exchanges import sections_of
from tests.support.process.processes import PROJECT
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel
from umbel.core.failure_kinds import CUT, KINDS

SECTIONS = sections_of((PROJECT / "docs" / "http.md").read_text())
CONFIG = """
[upstreams.up]
urls = ["http://127.0.0.1:@PORT@"]
[limits.each]
rate = "1/s"
burst = 4
key = "client.ip"
[[routes]]
path = "/page"
krakend_compat = true
calls.one = { upstream = "up", path = "/one" }
calls.two = { upstream = "up", path = "/two", optional = true, method = "POST", json = "one" }
[[routes]]
path = "/limited"
limits = "each"
calls.one = { upstream = "up", path = "/one" }
[[routes]]
path = "/broken"
calls.two = { upstream = "up", path = "/two" }
"""


def fields(section: str) -> set[str]:
    """The fields in the first column of a table; a field ``-Name`` of a row has the beginning of the one before it."""
    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS[section], re.MULTILINE)
    return {name.lower() for row in rows for name in re.findall(r"`([\w-]+)", row)}


async def test_each_field_that_is_sent_without_being_configured_stands_in_a_table(tmp_path: Path) -> None:
    upstream_got: set[str] = set()

    async def upstream(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            upstream_got.update(
                line.partition(":")[0].lower() for line in request[0].decode().split("\r\n")[1:] if line
            )
            works = b" /one " in request[0]
            await peer.send(response(b"1") if works else response(b"", status=b"500 Oops"))

    client_got: dict[str, set[str]] = {}
    async with raw_server(upstream) as server:
        (tmp_path / "umbel.toml").write_text(CONFIG.replace("@PORT@", str(int(server))))
        async with serving(Umbel.from_file(tmp_path / "umbel.toml")) as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                replies = [
                    await client.get("/page"),
                    await client.get("/broken"),
                    await client.get("/nowhere"),
                    await client.post("/page"),
                    *[await client.get("/limited") for _ in range(5)],
                    await client.get("/readyz"),
                ]
            for reply in replies:
                client_got.setdefault(str(reply.status_code), set()).update(reply.headers)

    assert set(client_got) == {"200", "404", "405", "429", "502"}
    assert set().union(*client_got.values()) - fields("Sent to clients") == set()
    assert {"retry-after", "ratelimit"} <= client_got["429"]
    assert upstream_got - fields("Sent to upstreams") == set()
    assert len(upstream_got) > 10


def test_each_kind_of_problem_stands_in_the_table_with_its_status() -> None:
    rows = dict(
        re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|", SECTIONS["Problem documents"].partition("| type |")[2], re.M)
    )
    own = {"insufficient-scope", "not-ready"}
    assert rows.keys() - own == {str(kind) for kind in KINDS if kind not in CUT}
    wrong = {name for name, status in rows.items() if name not in own and str(KINDS[name].status) not in status}
    assert wrong == {"dependency"}  # It has the status of its cause.
