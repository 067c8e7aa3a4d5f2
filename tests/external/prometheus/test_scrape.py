"""Prometheus scrapes a master that serves the demo's traffic: all documented queries are valid and have data."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.external.prometheus.server import Api, prometheus
from tests.support.auth.oidc_provider import Provider, provided
from tests.support.observe.queries import DOCS, alerts, of_page, of_panels, of_variables
from tests.support.process.supervised import Supervised, supervised
from umbel.demo.session import SAMPLE
from umbel.demo.traffic import send_traffic
from umbel.demo.upstreams import sample_upstreams

DATA_S_MAX = 40.0
SCRAPING = """
global: { scrape_interval: 1s, evaluation_interval: 1s }
scrape_configs:
  - job_name: umbel
    static_configs: [{ targets: ["127.0.0.1:PORT"] }]
rule_files: [alerts.yml]
"""
MORE_CONFIG = """
[upstreams.gone]
urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
breaker = { min_requests = 5 }
[[routes]]
path = "/gone"
calls.gone = { upstream = "gone", path = "/", mirror = { upstream = "users", share = "100%" } }
[upstreams.id]
urls = ["ISSUER"]
[auth.users]
kind = "jwt"
algorithms = ["ES256"]
issuers = [{ iss = "ISSUER", jwks = { upstream = "id", path = "/jwks.json" } }]
[[routes]]
path = "/mine"
auth = "users"
respond = { text = "yours" }
[limits.few]
key = "headers.x_client"
rate = "1/m"
burst = 1
max_keys = 1
[[routes]]
path = "/few"
auth = "none"
limits = ["few"]
respond = { text = "few" }
"""
GONE = b"GET /gone HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
WITHOUT_TOKEN = GONE.replace(b"/gone", b"/mine")
FEW = tuple(
    b"GET /few HTTP/1.1\r\nhost: x\r\nx-client: %d\r\nconnection: close\r\n\r\n" % client for client in range(3)
)
"""Requests of three clients, of which each worker remembers one."""
VALUES = {"$__rate_interval": "10s", "$job": ".*", "$instance": ".*", "$route": ".*", "$upstream": ".*"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
        return port


@asynccontextmanager
async def busy_master(directory: Path, metrics_port: int) -> AsyncIterator[Supervised]:
    """A master with two workers, the sample configuration and the demo's traffic; some of each trouble happens."""
    async with (
        sample_upstreams(faults=True, seed=7) as urls,
        provided(Provider(users={})) as provider,
        trio.open_nursery() as nursery,
    ):
        text = SAMPLE.read_text() + MORE_CONFIG.replace("ISSUER", provider.issuer)
        text += f'[admin]\nmetrics = "127.0.0.1:{metrics_port}"\n'
        # No collector is there, so spans are lost.
        text += f'[traces]\notlp = "http://127.0.0.1:{free_port()}"\nsample = 1.0\n'
        for service, port in (("users", 9001), ("orders", 9002), ("catalog", 9003), ("offers", 9005)):
            text = text.replace(f"http://127.0.0.1:{port}", urls[service][0])
        (directory / "umbel.toml").write_text(text.replace("http://127.0.0.1:9004", urls["catalog"][1]))
        async with supervised(directory, app=None, workers=2) as master:
            nursery.start_soon(send_traffic, f"http://127.0.0.1:{master.port}", random.Random(7))
            nursery.start_soon(_troubles, master)
            yield master
            nursery.cancel_scope.cancel(reason="the test has ended")


async def _troubles(master: Supervised) -> None:
    """Requests that fail in several ways each second; after some seconds a reload, and a killed worker."""
    for second in range(1000):
        for request in (*[GONE] * 4, WITHOUT_TOKEN, *FEW, *FEW, b"not HTTP\r\n\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", master.port)
            async with stream:
                await stream.send_all(request)
                while await stream.receive_some():
                    pass
        if second == 3:
            master.signal(signal.SIGHUP)
        if second == 8:
            os.kill((await master.pids())[1], signal.SIGKILL)
        await trio.sleep(1)


async def test_each_documented_query_has_data(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "prometheus").mkdir()
    shutil.copy(DOCS / "prometheus" / "alerts.yml", tmp_path / "prometheus")
    async with (
        busy_master(tmp_path, port),
        prometheus(tmp_path / "prometheus", SCRAPING.replace("PORT", str(port))) as api,
    ):
        examples = {place: query for place, query in of_page().items() if "(" in query and "NAME" not in query}
        empty = {place: _with_values(query) for place, query in (of_panels() | examples).items()}
        with trio.move_on_after(DATA_S_MAX):
            while empty := {  # noqa: ASYNC110  # Prometheus has no event of it.
                place: query for place, query in empty.items() if not await _has_data(api, query)
            }:
                await trio.sleep(1)
        assert empty == {}

        for selector, label in of_variables().values():
            assert await api.get(f"label/{label}/values", **{"match[]": _with_values(selector)}), label
        await _check_alerts(api)
        buckets = "http_server_request_duration_seconds_bucket"
        exemplars = await api.get("query_exemplars", query=buckets, start=time.time() - 600, end=time.time())
        assert len(exemplars[0]["exemplars"][0]["labels"]["trace_id"]) == 32


async def _has_data(api: Api, query: str) -> bool:
    """Whether a query gives at least one number."""
    found = (await api.get("query", query=query))["result"]
    return any(math.isfinite(float(each["value"][1])) for each in found)


async def _check_alerts(api: Api) -> None:
    """Prometheus evaluates each alert, and the one about the breaker of the upstream that is gone gets pending."""
    with trio.fail_after(DATA_S_MAX):
        while True:
            [group] = (await api.get("rules"))["groups"]
            states = {rule["name"]: rule["state"] for rule in group["rules"]}
            if states["UmbelBreakerOpen"] != "inactive":
                break
            await trio.sleep(1)
    assert list(states) == list(alerts())
    assert {(rule["health"], rule.get("lastError")) for rule in group["rules"]} == {("ok", None)}
    assert states["UmbelDown"] == "inactive"


def _with_values(query: str) -> str:
    for name, value in VALUES.items():
        query = query.replace(name, value)
    return query
