"""The traffic of the demo: which requests are sent, and when; in virtual time."""

from __future__ import annotations

import random
from collections import Counter

import httpx
import pytest
import trio
from trio.testing import MockClock

from umbel.demo.services import SERVICES, Faults
from umbel.demo.traffic import IN_FLIGHT_MAX, REQUESTS_PER_S, Visit, next_visit, send_traffic
from umbel.demo.upstreams import SampleUpstream

SEED = 7


class Gateway:
    """A gateway that answers after ``seconds``, or is gone, and counts what it gets."""

    def __init__(self, seconds: float = 0.0, *, gone: bool = False) -> None:
        self._seconds = seconds
        self._gone = gone
        self.requests: list[tuple[float, str, str]] = []
        self.left: list[str] = []
        self.in_flight = self.in_flight_max = 0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path, accept = request.url.raw_path.decode(), request.headers["accept"]
        self.requests.append((trio.current_time(), path, accept))
        if self._gone:
            raise httpx.ConnectError("refused")
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        try:
            await trio.sleep(self._seconds)
        except trio.Cancelled:
            self.left.append(path)
            raise
        finally:
            self.in_flight -= 1
        return httpx.Response(200)

    async def get_traffic(self, seconds: float, seed: int = SEED) -> None:
        with trio.move_on_after(seconds):
            await send_traffic("http://gateway.test", random.Random(seed), transport=httpx.MockTransport(self.answer))


async def test_the_rate_is_steady_and_the_same_seed_sends_the_same_requests(autojump_clock: MockClock) -> None:
    first, second, other = Gateway(), Gateway(), Gateway()
    for gateway, seed in ((first, SEED), (second, SEED), (other, SEED + 1)):
        await gateway.get_traffic(20, seed)

    assert len(first.requests) == pytest.approx(20 * REQUESTS_PER_S, rel=0.15)
    assert [request[1:] for request in first.requests] == [request[1:] for request in second.requests]
    assert [request[1:] for request in first.requests] != [request[1:] for request in other.requests]


async def test_clients_that_leave_close_their_request_before_the_answer(autojump_clock: MockClock) -> None:
    gateway = Gateway(seconds=0.05)

    await gateway.get_traffic(20)

    assert 5 < len(gateway.left) < 40
    assert sum(not path.startswith("/dashboard/") for path in gateway.left) <= 5  # those that the end of the test cut


async def test_a_gateway_that_hangs_gets_a_bounded_number_of_requests(autojump_clock: MockClock) -> None:
    gateway = Gateway(seconds=1000.0)

    await gateway.get_traffic(30)

    assert gateway.in_flight_max == IN_FLIGHT_MAX
    assert gateway.in_flight == 0  # All ended with the traffic.


async def test_a_gateway_that_refuses_connections_does_not_end_the_traffic(autojump_clock: MockClock) -> None:
    gateway = Gateway(gone=True)

    await gateway.get_traffic(10)

    assert len(gateway.requests) > 100


def test_the_mix_has_every_kind_of_request() -> None:
    chance = random.Random(SEED)
    visits = [next_visit(chance) for _ in range(1000)]

    kinds = Counter(_kind(visit) for visit in visits)
    assert set(kinds) == {"page", "limit", "stream", "leaves", "item", "no item", "bad limit", "no page"}
    assert kinds["page"] > 400


async def test_faults_of_a_service_come_as_often_as_they_say(autojump_clock: MockClock) -> None:
    faults = Faults(slow=0.1, slow_s=5.0, failing=0.2)
    chance = random.Random(SEED)
    upstream = SampleUpstream(SERVICES["users"], slow=False, fail=False, chance=chance, faults=faults)
    statuses, slow = Counter[int](), 0
    for _ in range(500):
        start = trio.current_time()
        response = await _ask(upstream, "/users/1")
        statuses[response] += 1
        slow += trio.current_time() - start > 5

    assert statuses[503] == pytest.approx(100, rel=0.3)
    assert statuses[200] + statuses[503] == 500
    assert slow == pytest.approx(50, rel=0.4)


def _kind(visit: Visit) -> str:
    if visit.path.startswith("/items/"):
        return "no item" if visit.path.endswith("hemlock") else "item"
    if not visit.path.startswith("/dashboard/"):
        return "no page"
    if "limit=" in visit.path:
        return "bad limit" if visit.path.endswith("all") else "limit"
    if visit.leaves_after < 1:
        return "leaves"
    return "stream" if "ndjson" in visit.accept else "page"


async def _ask(upstream: SampleUpstream, path: str) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(upstream)) as client:  # type: ignore[arg-type]
        return (await client.get(f"http://users.test{path}")).status_code
