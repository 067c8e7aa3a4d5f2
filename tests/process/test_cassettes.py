"""``umbel record`` and ``umbel replay``: a recorded gateway answers the same without its upstreams."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

import httpx

from tests.support.process.processes import PYTHON, ended, started
from tests.support.upstream.raw_server import answering, raw_server, response

CONFIG = """
[upstreams.users]
urls = ["http://127.0.0.1:{port}"]
[[routes]]
path = "/page/<id>"
calls.user = {{ upstream = "users", path = "/users/{{id}}" }}
"""
UMBEL = (PYTHON, "-m", "umbel")


async def _ask(tmp_path: Path, *command: str) -> tuple[list[tuple[int, str]], str]:
    """Run a command that serves, ask for two pages, and stop it; return statuses and bodies, and the output."""
    async with started(*UMBEL, *command, "-b", "127.0.0.1:0", cwd=tmp_path) as child, httpx.AsyncClient() as client:
        address = await child.address()
        replies = [await client.get(f"{address}/page/{number}") for number in (1, 2)]
        child.send(signal.SIGTERM)
        assert await child.end() == 0, child.output
    return [(reply.status_code, reply.text) for reply in replies], child.output


async def test_a_recorded_gateway_answers_the_same_without_its_upstreams(tmp_path: Path) -> None:
    reply = response(b'{"name":"Ada"}', b"Content-Type: application/json")
    async with raw_server(answering(reply)) as port:
        (tmp_path / "umbel.toml").write_text(CONFIG.format(port=int(port)))
        recorded, said = await _ask(tmp_path, "record", "c.jsonl", "--bodies")
    assert "wrote 2 exchanges to c.jsonl" in said
    assert "bodies are recorded as they are" in said
    assert stat.S_IMODE((tmp_path / "c.jsonl").stat().st_mode) == 0o600
    assert recorded == [(200, '{"user":{"name":"Ada"}}')] * 2
    assert (await _ask(tmp_path, "replay", "c.jsonl"))[0] == recorded


async def test_what_was_not_recorded_gets_404(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text(CONFIG.format(port=1))
    (tmp_path / "c.jsonl").write_text('{"umbel_cassette":1}\n')
    replies, _ = await _ask(tmp_path, "replay", "c.jsonl")
    assert [status for status, _ in replies] == [404, 404]


async def test_a_cassette_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text(CONFIG.format(port=1))
    for command, sentence in (
        (("record", "umbel.toml"), "umbel.toml exists already; name a new file"),
        (("record", "no/c"), "cannot write no/c: No such file or directory"),
        (("replay", "none"), "none cannot be read: No such file or directory"),
        (("replay", "umbel.toml"), "umbel.toml is no cassette; umbel record writes one"),
    ):
        assert await ended(*UMBEL, *command, cwd=tmp_path) == (1, f"Error: {sentence}\n")
