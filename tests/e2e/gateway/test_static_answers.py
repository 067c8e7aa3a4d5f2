"""Answers without an upstream, and redirects of upstreams, over real sockets and under both servers."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway.program import SERVERS, running, up
from tests.support.upstream.raw_server import Peer, raw_server, response

CONFIG = """
[[routes]]
path = "/hello"
methods = ["GET", "POST"]
respond = { file = "hello.html", headers = { x-a = "b" } }

[[routes]]
path = "/gone/<path:rest>"
respond = { status = 410, text = "gone", delay = "10ms" }

[[routes]]
path = "/old/<id>"
query = ["next"]
redirect.to = "/new/{id}{?next}"

[[routes]]
path = "/mock"
calls.part = { respond = { json = { id = 1 }, headers = { set-cookie = "s=1" } } }

[[routes]]
path = "/follow"
calls.part = { upstream = "up", path = "/a", redirects = "follow" }

[[routes]]
path = "/pass"
calls.part = { upstream = "up", path = "/a", redirects = "pass", pass_body = true }

[[routes]]
path = "/create"
calls.part = { upstream = "up", path = "/c", method = "POST" }
answer.status_from = "part"
"""


async def upstream(peer: Peer) -> None:
    """Redirect ``/a`` to ``/b``, which answers, and create at ``/c``. Each response tries to set a cookie."""
    cookie = b"Set-Cookie: evil=1; Domain=example.com"
    while head := await peer.read_head():
        method, target, _ = head.split(b" ", 2)
        if target == b"/a":
            await peer.send(response(b"moved", b"Location: /b", cookie, status=b"302 Found"))
        elif target == b"/c":
            await peer.send(response(b"{}", b"Location: /c/1", cookie, status=b"201 Created"))
        else:
            await peer.send(response(b'"%b"' % method, cookie))


@SERVERS
async def test_each_kind_of_answer_is_the_same_under_both_servers(stock: bool, tmp_path: Path) -> None:
    (tmp_path / "hello.html").write_text("<p>Hello</p>")
    async with raw_server(upstream) as server, running(tmp_path, up(server) + CONFIG, stock=stock) as program:
        page, _ = await program.ask("/hello")
        head, _ = await program.ask("/hello", "HEAD")
        same, _ = await program.ask("/hello", "GET", [("if-none-match", page["etag"])])
        posted, _ = await program.ask("/hello", "POST", body=b"x" * 70_000)
        gone, _ = await program.ask("/gone/a/b")
        moved, _ = await program.ask("/old/a%0d%0ax?next=//evil.test")
        mock, _ = await program.ask("/mock")
        followed, _ = await program.ask("/follow")
        passed, _ = await program.ask("/pass")
        created, _ = await program.ask("/create")
    assert (page.status, page.body, page["content-type"]) == (200, b"<p>Hello</p>", "text/html; charset=utf-8")
    assert (head.status, head.body, head["content-length"], head["x-a"]) == (200, b"", "12", "b")
    assert (same.status, same.body, same["etag"]) == (304, b"", page["etag"])
    assert (posted.status, posted.body) == (200, page.body)
    assert (gone.status, gone.body) == (410, b"gone")
    assert (moved.status, moved["location"]) == (308, "/new/a%0D%0Ax?next=%2F%2Fevil.test")
    assert (mock.status, mock.body) == (200, b'{"part":{"id":1}}')
    assert (followed.status, followed.body) == (200, b'{"part":"GET"}')
    assert (passed.status, passed["location"], passed.body) == (302, "/b", b"moved")
    assert (created.status, created["location"]) == (201, "/c/1")
    for reply in (page, gone, moved, mock, followed, passed, created):
        assert reply.all("set-cookie") == []
