"""examples/stream: its commands run, tokens come one by one, and a client that leaves ends its call to the model."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.support.process.examples import Example, running_example, shown_commands
from tests.support.server.serving import RawClient, connected

PROMPT = next(word for word in shown_commands("stream")[2] if word.startswith("{")).encode()


class Events:
    """The server-sent events of a response that is still being received."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    async def next(self) -> str:
        """The data of the next event."""
        client = self._client
        with trio.fail_after(20):
            while b"data: " not in client.received or b"\n\n" not in client.received.partition(b"data: ")[2]:
                client.received += await client.stream.receive_some()
        data, _, client.received = client.received.partition(b"data: ")[2].partition(b"\n\n")
        return data.decode()


@asynccontextmanager
async def watched(example: Example) -> AsyncIterator[Events]:
    """Open the stream of the number of responses that are being generated."""
    async with connected(example.port) as client:
        await client.send("GET", "/running")
        yield Events(client)


@asynccontextmanager
async def chat(example: Example) -> AsyncIterator[Events]:
    """Send the prompt that README.md shows; the connection is closed at the end of the block."""
    async with connected(example.port) as client:
        await client.send("POST", example.shown, [("content-type", "application/json")], PROMPT)
        yield Events(client)


async def test_a_client_that_leaves_ends_the_generation_at_the_model(tmp_path: Path) -> None:
    async with running_example("stream", tmp_path) as example:
        async with watched(example) as counts:
            assert await counts.next() == "0"
            async with chat(example) as tokens:
                first = [json.loads(await tokens.next()) for _ in range(3)]
                assert await counts.next() == "1"
            assert await counts.next() == "0"
        status = await example.gateway.stop(signal.SIGTERM)

    assert [token["token"] for token in first] == ["no", "call", "is"]
    assert (status, "Traceback" in example.gateway.output, "warning" in example.gateway.output) == (0, False, False)
    records = [json.loads(line) for line in (example.logs / "access.jsonl").read_text().splitlines()]
    assert {record["url.path"] for record in records} == {"/v1/chat", "/running"}
    assert all(record["http.response.body.size"] > 0 and "duration_ms" in record for record in records)


async def test_a_whole_response_has_every_token_and_its_end(tmp_path: Path) -> None:
    async with running_example("stream", tmp_path, TOKEN_MS="0") as example, connected(example.port) as client:
        reply = await client.request("POST", example.shown, [("content-type", "application/json")], PROMPT)

    assert (reply.status, reply["content-type"]) == (200, "text/event-stream")
    events = [event.removeprefix("data: ") for event in reply.body.decode().split("\n\n")[:-1]]
    assert len(events) == 201
    assert events[-1] == "[DONE]"
    assert {json.loads(event)["model"] for event in events[:-1]} == {"model"}


async def test_a_second_model_answers_if_the_first_cannot_be_reached(tmp_path: Path) -> None:
    unreachable = {"MODEL": "http://127.0.0.1:1"}
    async with running_example("stream", tmp_path, gateway_environ=unreachable) as example, chat(example) as tokens:
        assert json.loads(await tokens.next())["model"] == "second"


async def test_the_parts_of_the_briefing_come_when_they_are_there(tmp_path: Path) -> None:
    def ordered(parts: list[dict[str, Any]]) -> list[Any]:
        return [part.get("call", "end") for part in parts]

    async with running_example("stream", tmp_path) as example, httpx.AsyncClient(base_url=example.url) as client:
        lines = await client.get("/briefing/Berlin")
        page = await client.get("/")
        sent = await client.get("/briefing/Berlin", headers={"accept": "text/event-stream"})

    parts = [json.loads(line) for line in lines.text.splitlines()]
    events = [json.loads(line.removeprefix("data: ")) for line in sent.text.splitlines() if line.startswith("data: ")]
    assert ordered(parts) == ordered(events) == ["weather", "news", "articles", "articles", "end"]
    assert parts[-1]["answer"]["articles"] == ["The text of article 7.", "The text of article 8."]
    assert page.headers["content-type"].startswith("text/html")
