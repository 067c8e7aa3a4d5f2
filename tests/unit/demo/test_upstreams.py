"""A sample upstream through the ASGI interface, in virtual time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from umbel.demo.services import SERVICES
from umbel.demo.upstreams import SLOW_S, SampleUpstream


class Client:
    """Sends one GET, and leaves after ``patience`` seconds."""

    def __init__(self, path: str, patience: float) -> None:
        self.scope: Any = {"type": "http", "raw_path": path.encode(), "query_string": b""}
        self._patience = patience
        self._asked = False
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await trio.sleep(self._patience)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def users(*, slow: bool = False, fail: bool = False) -> SampleUpstream:
    return SampleUpstream(SERVICES["users"], slow=slow, fail=fail, chance=random.Random(1))


async def test_a_disconnect_ends_the_processing_of_its_request(autojump_clock: MockClock) -> None:
    client, start = Client("/users/42", patience=0.5), trio.current_time()

    await users(slow=True)(client.scope, client.receive, client.send)

    assert trio.current_time() - start == pytest.approx(0.5)
    assert client.sent == []


async def test_a_slow_answer_comes_after_its_delay(autojump_clock: MockClock) -> None:
    client, start = Client("/users/42", patience=60), trio.current_time()

    await users(slow=True)(client.scope, client.receive, client.send)

    assert SLOW_S < trio.current_time() - start < SLOW_S + 0.5
    assert [message.get("status", message.get("body")) for message in client.sent] == [
        200,
        b'{"id":42,"name":"Ada","segment":"garden"}',
    ]


async def test_the_latency_varies_around_its_median(autojump_clock: MockClock) -> None:
    upstream, times = users(), []
    for _ in range(500):
        client, start = Client("/users/42", patience=60), trio.current_time()
        await upstream(client.scope, client.receive, client.send)
        times.append((trio.current_time() - start) * 1000)

    times.sort()
    median = SERVICES["users"].median_ms
    assert times[250] == pytest.approx(median, rel=0.15)
    assert times[495] > 2 * median
