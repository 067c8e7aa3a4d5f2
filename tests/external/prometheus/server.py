"""A Prometheus process for tests, with its data in the test's directory, and its HTTP API."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tools.external import program

from tests.support.process.processes import started

OPTIONS = ("--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage")


class Api:
    """The HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of a response.

        Raises:
            AssertionError: the response is an error, for example about a query that cannot be parsed.
        """
        response = await self._client.get(f"/api/v1/{path}", params=parameters)
        answer = response.json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]


@asynccontextmanager
async def prometheus(directory: Path, config: str) -> AsyncIterator[Api]:
    """Run Prometheus on a free port of loopback within the block."""
    (directory / "prometheus.yml").write_text(config)
    command = (program("prometheus") or "prometheus", "--config.file=prometheus.yml", *OPTIONS)
    async with started(*command, cwd=directory) as child:
        found = re.search(r"address=(127\.0\.0\.1:\d+)", await child.line('msg="Listening on"'))
        assert found is not None, child.output
        await child.line("Server is ready to receive web requests")
        async with httpx.AsyncClient(base_url=f"http://{found[1]}", trust_env=False) as client:
            yield Api(client)
        await child.stop(signal.SIGTERM)
