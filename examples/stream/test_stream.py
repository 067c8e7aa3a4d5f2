"""The streams of the page, without its services: scripted answers, virtual time, no sockets.

pip install 'umbel[testing]' && pytest
"""

import json as jsonlib
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from umbel.testing import delay, fail, hang, json, sse

CONFIG = Path(__file__).with_name("umbel.toml")
PROMPT = {"prompt": "hello"}


async def test_tokens_come_one_by_one_and_a_client_that_leaves_ends_the_call(umbel_gateway):
    model = sse("one", delay(1), "two", delay(1), "three", hang())
    async with umbel_gateway(CONFIG, {"model": model}) as client:
        chat = client.stream("POST", "/v1/chat", json=PROMPT)
        async with chat as response, aclosing(aiter(response.stream)) as pieces:
            assert [await anext(pieces), await anext(pieces)] == [b"data: one\n\n", b"data: two\n\n"]

        assert client.trace().outcome == "cancelled"
        assert client.trace().duration == 1.0
        # At the end of this block the fixture would fail if the call to the model were left.


async def test_the_second_model_answers_only_if_the_first_cannot_be_reached(umbel_gateway):
    for outage, status, asked in ((fail("connect"), 200, 1), (json({}, 500), 500, 0)):
        async with umbel_gateway(CONFIG, {"model": outage, "second": sse("hello")}) as client:
            response = await client.post("/v1/chat", json=PROMPT)
            assert (response.status_code, len(client.received("second"))) == (status, asked)


async def test_a_model_that_falls_silent_is_cut_after_30_seconds(umbel_gateway):
    async with umbel_gateway(CONFIG, {"model": sse("one", delay(29), "two", hang())}) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat", json=PROMPT)
        assert client.trace().duration == 29 + 30


async def test_the_parts_of_the_briefing_come_in_the_order_of_their_arrival(umbel_gateway):
    services = {
        "/weather/Berlin": delay(0.3).then(json({"sky": "clear"})),
        "/news/Berlin": delay(0.2).then(json([{"id": 7, "title": "A bridge"}])),
        "/articles/7": delay(0.2).then(json({"text": "It opens."})),
    }
    async with umbel_gateway(CONFIG, {"services": services}) as client:
        answer = await client.get("/briefing/Berlin")

    parts = [jsonlib.loads(line) for line in answer.text.splitlines()]
    assert [part.get("call", "end") for part in parts] == ["news", "weather", "articles", "end"]
    assert parts[-1]["answer"] == {"weather": {"sky": "clear"}, "news": ["A bridge"], "articles": ["It opens."]}
