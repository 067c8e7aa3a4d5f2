"""Limits on bodies, forms and expressions: each has a key, and a large body does not delay other clients."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio

from tests.support.gateway.program import route, running, up
from tests.support.server.serving import connected
from tests.support.upstream.raw_server import answering, raw_server, response

NUMBERS = b"[" + b"123456," * 249_999 + b"1]"
JSON = b"Content-Type: application/json"


@pytest.mark.parametrize(("max_body", "status"), [("2MB", 200), ("20MB", 200), ("1MB", 502)])
async def test_a_long_list_of_an_upstream_is_read_if_max_body_allows_its_size(
    max_body: str, status: int, tmp_path: Path
) -> None:
    async with raw_server(answering(response(NUMBERS, JSON))) as upstream:
        config = up(upstream, f'max_body = "{max_body}"') + route(
            answer='shape = "length(part)"', keys='deadline = "20s"'
        )
        async with running(tmp_path, config) as program:
            reply, _ = await program.ask("/r")
            assert reply.status == status
            if status == 200:
                assert reply.json == 250_000


async def test_a_long_list_of_a_client_is_read_if_max_body_allows_its_size(tmp_path: Path) -> None:
    keys = 'deadline = "20s"\nmax_body = "%s"'
    routes = [route(f"/{size}", call='json = "length(body)"', keys=keys % size) for size in ("2MB", "1900KB")]
    fields = [("content-type", "application/json")]
    few, many = NUMBERS, b"[" + b"1," * 390_000 + b"1]"
    async with (
        raw_server(answering(response(b"1", JSON), response(b"1", JSON))) as upstream,
        running(tmp_path, up(upstream) + "".join(routes)) as program,
    ):
        assert (await program.ask("/2MB", "POST", fields, few))[0].status == 200
        assert (await program.ask("/2MB", "POST", fields, many))[0].status == 200
        refused, _ = await program.ask("/1900KB", "POST", fields, many)
        assert refused.status == 400
        assert "more than 380000 values; a larger max_body allows more" in refused.json["detail"]


async def test_other_clients_are_answered_while_a_list_of_many_values_is_read(tmp_path: Path) -> None:
    large = b"[" + b'{"id":1,"n":[2,3]},' * 100_000 + b"4]"
    async with raw_server(answering(response(large, JSON))) as upstream:
        config = up(upstream, 'max_body = "50MB"') + route(answer='shape = "length(part)"', keys='deadline = "30s"')
        async with running(tmp_path, config) as program, connected(program.port) as client:
            await client.send("GET", "/r")
            done, slowest = trio.Event(), 0.0

            async def read() -> None:
                assert (await client.reply()).json == 100_001
                done.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while not done.is_set():
                    began = trio.current_time()
                    assert (await program.ask("/livez"))[0].status == 200
                    slowest = max(slowest, trio.current_time() - began)
            assert slowest < 1


async def test_max_body_and_max_steps_raise_the_limits_on_forms_and_expressions(tmp_path: Path) -> None:
    form = urlencode([(f"field-{number}", "x" * 20) for number in range(5000)]).encode()
    items = b"[" + b'{"id":1,"name":"x"},' * 45_000 + b"1]"
    shape = 'shape = "length(part[*].{id: id, name: name})"'
    async with raw_server(answering(*[response(items, JSON)] * 3)) as upstream:
        config = (
            up(upstream)
            + route("/form", call='form = "body"', keys='body = "form"\nmax_body = "5MB"')
            + route("/few", answer=shape, keys='deadline = "20s"')
            + route("/many", answer=shape, keys='deadline = "20s"\nmax_steps = 400000')
        )
        async with running(tmp_path, config) as program:
            kind = [("content-type", "application/x-www-form-urlencoded")]
            assert (await program.ask("/form", "POST", kind, form))[0].status == 200
            assert (await program.ask("/few"))[0].status == 502
            assert (await program.ask("/many"))[0].json == 45_001
