"""The order of an upstream's layers, spelled once, and the stack that they make.

Built by the gateway for each upstream of the configuration; the composition sees it as an ``httpx.AsyncBaseTransport``.
It adds nothing of its own.

Outermost first, and why each stands where it stands:

1. **bulkhead**: counts calls, not attempts, and is the upstream's only queue. Outside of all that makes attempts, so
   that a retry never queues again behind new calls, and a call that finds the queue full has cost nothing.
2. **balance**: takes a replica for each attempt. Below retries and hedges (when they come), so that another attempt
   can take another replica; above the attempt, so that the record names the replica.
3. **attempt**: tells the upstream the time that is left now, after the queue; traces and records. It sees the body
   being read, so a late, broken or too big body is its failure.
4. **body**: reads, bounds, decodes. Above it a response is complete, and its connection is back in the pool.
5. **pool**: connections. Without a limit of its own: the bulkhead has counted already, and two queues would hide one
   another.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from ..config.schema import Tls, Upstream
from .attempt import Attempt
from .balance import Balance, BalanceStatistics
from .body import Body
from .bulkhead import Bulkhead, BulkheadStatistics
from .http1 import Limits
from .layer import Layer
from .origin import Replica
from .pool import Pool, PoolStatistics
from .tls import client_context


@dataclass(frozen=True, slots=True)
class StackStatistics:
    """A snapshot of an upstream."""

    bulkhead: BulkheadStatistics
    balance: BalanceStatistics
    pool: PoolStatistics


class Stack(Layer):
    """An upstream's layers as one transport and one async context manager. Made by ``build``."""

    def __init__(self, name: str, bulkhead: Bulkhead, balance: Balance, pool: Pool) -> None:
        super().__init__(bulkhead)
        self.name = name
        self._bulkhead = bulkhead
        self._balance = balance
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The complete response: read, decoded, bounded, its connection given back.

        Raises:
            UpstreamError: of the kind that says why there is none.
        """
        return await self._transport.handle_async_request(request)

    def statistics(self) -> StackStatistics:
        """A snapshot."""
        return StackStatistics(self._bulkhead.statistics(), self._balance.statistics(), self._pool.statistics())


def build(name: str, config: Upstream, *, base_dir: Path | None = None, rng: random.Random | None = None) -> Stack:
    """The stack of one upstream. TLS files are read here; relative ones are relative to ``base_dir``.

    Raises:
        ValueError: a TLS file cannot be used; one sentence that begins with ``tls.`` and its key.
    """
    replicas = [Replica.parse(url, server_name=config.tls.server_name) for url in config.urls]
    secure = any(replica.origin.scheme == "https" for replica in replicas)
    pool = Pool(
        connect_timeout=config.connect_timeout,
        keepalive_expiry=config.keepalive_expiry,
        max_connections=None,
        max_idle=config.max_concurrency,
        limits=Limits(config.max_head, config.max_fields),
        ssl_context=_context(config.tls, base_dir or Path()) if secure else None,
        public_only=config.public_only,
    )
    body = Body(pool, max_body=config.max_body)
    attempt = Attempt(body, deadline_header=config.deadline_header or None, rng=rng)
    balance = Balance(attempt, replicas)
    bulkhead = Bulkhead(balance, max_concurrency=config.max_concurrency, max_queue=config.max_queue)
    return Stack(name, bulkhead, balance, pool)


def _context(tls: Tls, base: Path) -> ssl.SSLContext:
    files = {key: str(base / file) for key, file in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)) if file}
    try:
        return client_context(**files)
    except ValueError as error:
        raise ValueError(f"tls.{error}") from error
