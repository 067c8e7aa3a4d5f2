"""Limits that count together with other processes: through any ASGI application around the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.logs.records import Records
from tests.support.server.asgi import living
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.limits.limiter import Limiter
from umbel.limits.machine_sharing import sharing_by

LIMIT = {"key": "client.ip", "rate": "1/s", "burst": 2}


class Sharing:
    """Keeps the names of the limiters that share now."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def share(self, limiters: Iterable[Limiter]) -> Iterator[None]:
        names = [each.name for each in limiters]
        self.names += names
        yield
        for name in names:
            self.names.remove(name)


async def test_a_gateway_that_is_wrapped_shares_its_limits_while_it_is_open() -> None:
    limits = {"all": LIMIT, "one": {**LIMIT, "shared": "worker"}}
    gateway, sharing = Umbel(__name__, Config.model_validate({"limits": limits}), recorder=Records()), Sharing()

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        await gateway(scope, receive, send)

    with sharing_by(sharing):
        async with living(wrapper):
            assert sharing.names == ["all"]
        assert sharing.names == []
    async with living(gateway):
        assert sharing.names == []
        assert gateway.runtime.limiters["all"].statistics().shared == "worker"
