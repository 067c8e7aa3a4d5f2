"""Clients of upstreams, made from the configuration, and the checks of the configuration that need these clients."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ..config.schema.policies import Ejection
from ..config.schema.sections import Call, Config, KeyPath, Tls, Upstream
from ..config.schema.values.units import format_duration
from ..core.events import NULL, Recorder
from ..core.model import Cause
from ..http1.response_reader import Limits
from ..net.epoll import Reader
from ..net.timers import TimerQueue
from ..policy.hedge import HedgeRules
from ..policy.idle_reuse import IDLE_MAX
from ..policy.replicas.ejection import EjectionRules
from ..policy.retry import RetryOn, RetryRules
from ..policy.retry_budget import Budget
from .calls.bulkhead import OverloadManager
from .client import BreakerRules, Client, HealthRules, Policies
from .limit_queue import LimitQueue
from .network import Network
from .pool.dial import Dial
from .pool.pool import Pool
from .pool.request_head import IDEMPOTENT
from .pool.tls import client_context
from .replicas.origin import Replica
from .replicas.sources import JoinedReplicas, ReplicaSource


class UpstreamConfigError(ValueError):
    """An upstream's client cannot be made from the configuration.

    Args:
        key: path of the key at fault, within the upstream's table.
        reason: one sentence.
    """

    def __init__(self, key: KeyPath, reason: str) -> None:
        super().__init__(f"{'.'.join(map(str, key))}: {reason}")
        self.key = key
        self.reason = reason


def build(
    name: str,
    config: Upstream,
    *,
    recorder: Recorder = NULL,
    base_dir: Path | None = None,
    rng: random.Random | None = None,
    reader: Reader | None = None,
    timers: TimerQueue | None = None,
    overload_manager: OverloadManager | None = None,
    first_cause: Cause = "first",
    limits: Sequence[LimitQueue] = (),
    network: Network | None = None,
    title: str = "",
) -> Client:
    """Make the client of one upstream. Reads the TLS files, if a replica has an https URL.

    Args:
        name: name of the upstream.
        config: table of the upstream.
        recorder: receives the records of state changes of the breaker and the replicas.
        base_dir: directory of relative paths of TLS files; None: the current directory.
        rng: source of all randomness; None: a generator of the client's own.
        reader, timers: socket reader and timer queue, which must run as long as the client is entered; None: the client
            has its own.
        overload_manager, first_cause, limits: see ``Client``.
        network: makes the connections in place of sockets; ``reader`` is its reader, and it has the ``rng``.
        title: the name of the client in messages and records; empty: ``name``.

    Raises:
        UpstreamConfigError: a TLS file cannot be used, or a ``dns+`` URL or an ejection rule is invalid.
    """
    secure = network is None and any(each.url.removeprefix("dns+").startswith("https:") for each in config.replicas)
    context = _tls_context(config.tls, base_dir or Path()) if secure else None
    return _build_client(
        name,
        config,
        context,
        recorder=recorder,
        rng=rng,
        reader=reader,
        timers=timers,
        overload_manager=overload_manager,
        first_cause=first_cause,
        limits=limits,
        network=network,
        title=title,
    )


def build_mirror(
    name: str,
    config: Upstream,
    *,
    recorder: Recorder = NULL,
    reader: Reader | None = None,
    timers: TimerQueue,
    network: Network | None = None,
) -> Client:
    """Make the client for the copies that mirrors send to an upstream. Arguments and errors are those of ``build``.

    It shares nothing with the client of the upstream's calls, so no copy takes a place, a connection or an attempt of a
    call, and no failed copy opens the breaker of calls or ejects their replicas. It makes one attempt per copy, has no
    queue and makes no health checks.
    """
    alone = {"retry": None, "hedge": None, "coalesce": False, "health": None, "max_queue": 0}
    return build(
        name,
        config.model_copy(update=alone),
        recorder=recorder,
        reader=reader,
        timers=timers,
        first_cause="mirror",
        network=network,
        title=f"{name} (mirror)",
    )


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the mistakes that show only when the clients are made, each as key path and reason.

    For the argument ``checks`` of ``load``. TLS files are not read, because the loader checks them.
    """
    for name, upstream in config.upstreams.items():
        try:
            _build_client(name, upstream, None)
        except UpstreamConfigError as error:
            yield ("upstreams", name, *error.key), error.reason


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning, as key path and reason, for each valid key that has less effect than its value suggests.

    These are a ``hedge``, and a long ``keepalive_expiry``, for a call whose request must not be sent twice.
    """
    # For each upstream, one of its calls whose request must not be sent twice.
    once: dict[str, str] = {}
    for index, route in enumerate(config.routes):
        for name, call in route.calls.items():
            if call.respond is not None:
                continue
            unsafe = [each for each in call.upstreams if not _may_be_repeated(call, config.upstreams[each])]
            for each in unsafe:
                once.setdefault(each, f"routes[{index}].calls.{name}")
            if unsafe and call.hedge is not None and call.hedge.max:
                at: KeyPath = ("routes", index, "calls", name, "hedge")
                yield at, "has no effect: the request of this call must not be sent twice; send an Idempotency-Key"
    for name, upstream in config.upstreams.items():
        if upstream.keepalive_expiry > IDLE_MAX and name in once:
            yield (
                ("upstreams", name, "keepalive_expiry"),
                f"has no effect beyond {format_duration(IDLE_MAX)} for {once[name]}, whose request must not be sent "
                "twice: it takes no connection that was idle for longer, because the upstream may close it; lower the "
                "value, or send an Idempotency-Key",
            )


def _may_be_repeated(call: Call, upstream: Upstream) -> bool:
    """Whether the request of a configured call may be sent twice; as ``request_head.is_idempotent``."""
    sends_body = call.json_ is not None or call.form is not None or call.forward_body
    if (call.method or ("POST" if sends_body else "GET")) in IDEMPOTENT:
        return True
    names = {name.lower() for name in (*call.headers, *upstream.headers, *call.forward_headers)}
    return not names.isdisjoint(("idempotency-key", "*"))


def _build_client(
    name: str,
    config: Upstream,
    context: ssl.SSLContext | None,
    *,
    recorder: Recorder = NULL,
    rng: random.Random | None = None,
    reader: Reader | None = None,
    timers: TimerQueue | None = None,
    overload_manager: OverloadManager | None = None,
    first_cause: Cause = "first",
    limits: Sequence[LimitQueue] = (),
    network: Network | None = None,
    title: str = "",
) -> Client:
    if network is not None:
        rng = network.rng_for(name)
        if not network.health_checks:
            config = config.model_copy(update={"health": None})
    replicas = _replicas(config, resolves=network is None)
    policies = _policies(config, weighted=isinstance(replicas, list) and config.balance == "weighted")
    dial = None if network is None else network.dial_for(name)
    pool = _pool(config, context, dial=dial, reader=reader, max_idle=policies.max_idle)
    return Client(
        title or name,
        replicas,
        policies,
        pool,
        timers=timers,
        overload_manager=overload_manager,
        rng=rng,
        recorder=recorder,
        first_cause=first_cause,
        limits=limits,
    )


def build_pool(config: Upstream) -> Pool:
    """Make a pool with an upstream's settings for connections, alone. Reads the TLS files.

    Raises:
        UpstreamConfigError: a TLS file cannot be used.
    """
    return _pool(config, _tls_context(config.tls, Path()))


def _pool(
    config: Upstream,
    context: ssl.SSLContext | None,
    *,
    dial: Dial | None = None,
    reader: Reader | None = None,
    max_idle: int | None = None,
) -> Pool:
    return Pool(
        connect_timeout=config.connect_timeout,
        keepalive_expiry=config.keepalive_expiry,
        max_connections=None,
        max_idle=max_idle,
        limits=Limits(config.max_head, config.max_fields),
        ssl_context=context,
        public_only=config.public_only,
        dial=dial,
        reader=reader,
    )


def _policies(config: Upstream, *, weighted: bool) -> Policies:
    retry, hedge, breaker, health = config.retry, config.hedge, config.breaker, config.health
    on = RetryOn() if retry is None or retry.on is None else RetryOn.of(retry.on)
    return Policies(
        coalesce=config.coalesce,
        breaker=None if breaker is None else BreakerRules(**breaker.model_dump()),
        max_concurrency=config.max_concurrency,
        max_queue=config.max_queue,
        max_streams=config.max_streams,
        retry=None if retry is None else RetryRules(retry.attempts, on, retry.backoff, retry.max_backoff),
        hedge=None if hedge is None else HedgeRules.of(hedge.after, hedge.max),
        budget=Budget(config.retry_budget),
        balance=config.balance,
        weights=_weights(config) if weighted else None,
        ejection=_ejection(config.ejection) if config.ejection else None,
        health=None if health is None else HealthRules(**health.model_dump()),
        user_agent=config.product,
        deadline_header=config.deadline_header or None,
        max_body=config.max_body,
        connect_timeout=config.connect_timeout,
    )


def _replicas(config: Upstream, *, resolves: bool = True) -> list[Replica] | ReplicaSource:
    """The replicas as a list; with a ``dns+`` URL among them, as a source that follows the addresses of the names.

    ``resolves``: False: a ``dns+`` URL is one replica.
    """
    name, host, urls = config.tls.server_name, config.host, [each.url for each in config.replicas]
    if not resolves:
        urls = [url.removeprefix("dns+") for url in urls]
    if not any(url.startswith("dns+") for url in urls):
        return [Replica.parse(url, server_name=name, host=host) for url in urls]
    # Imported here, because dnspython is slow to import and few configurations need it.
    from .replicas.dns import DnsReplicas

    parts: list[Replica | ReplicaSource] = []
    for place, url in enumerate(urls):
        if url.startswith("dns+"):
            try:
                parts.append(DnsReplicas(url, server_name=name, host=host, public_only=config.public_only))
            except ValueError as error:
                raise UpstreamConfigError(("urls", place), str(error)) from error
        else:
            parts.append(Replica.parse(url, server_name=name, host=host))
    return JoinedReplicas(parts, _weights(config))


def _weights(config: Upstream) -> list[int]:
    return [each.weight for each in config.replicas]


def _ejection(config: Literal[True] | Ejection) -> EjectionRules:
    if config is True:
        return EjectionRules()
    try:
        return EjectionRules(config.failures, config.base, config.max, config.share)
    except ValueError as error:
        raise UpstreamConfigError(("ejection",), str(error)) from error


def _tls_context(tls: Tls, base: Path) -> ssl.SSLContext:
    files = {key: str(base / file) for key, file in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)) if file}
    try:
        return client_context(**files)
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise UpstreamConfigError(("tls", key), reason) from error
