"""The sample services of the demo over sockets."""

from __future__ import annotations

import socket

import httpx
import pytest

from umbel.demo import upstreams
from umbel.demo.services import SERVICES
from umbel.demo.upstreams import sample_upstreams


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_each_replica_of_each_service_answers_at_its_own_port() -> None:
    async with sample_upstreams() as urls:
        assert {name: len(replicas) for name, replicas in urls.items()} == {
            name: len(service.ports) for name, service in SERVICES.items()
        }
        everything = [url for replicas in urls.values() for url in replicas]
        assert len(set(everything)) == len(everything)

        response = await get(f"{urls['users'][0]}/users/42")
        for catalog in urls["catalog"]:
            assert (await get(f"{catalog}/items/dill-seed")).json()["sku"] == "dill-seed"

    assert response.json() == {"id": 42, "name": "Ada", "segment": "garden"}
    assert response.headers["content-type"] == "application/json"


async def test_a_failing_service_does_not_affect_the_others() -> None:
    async with sample_upstreams(fail=["orders"]) as urls:
        assert (await get(f"{urls['orders'][0]}/orders?user_id=42")).status_code == 500
        assert (await get(f"{urls['users'][0]}/users/42")).status_code == 200


async def test_a_slow_service_adds_its_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "SLOW_S", 0.2)

    async with sample_upstreams(slow=["users"]) as urls:
        response = await get(f"{urls['users'][0]}/users/42")

    assert response.status_code == 200
    assert response.elapsed.total_seconds() >= 0.2


async def test_a_taken_default_port_is_replaced_by_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        taken_port, free_port = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        users = SERVICES["users"]._replace(ports=(taken_port, free_port))
        monkeypatch.setattr(upstreams, "SERVICES", {"users": users})

        async with sample_upstreams(usual_ports=True) as urls:
            first, second = urls["users"]
            assert first != f"http://127.0.0.1:{taken_port}"
            assert second == f"http://127.0.0.1:{free_port}"
            assert (await get(f"{first}/users/42")).status_code == 200
