"""Transport for httpx on trio: one upstream with its policies."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

import httpx
import trio

from ..core.call import Call, CallContext, Mode, PreparedRequest, SingleCallOwner, StepTimeouts
from ..core.events import NULL, Recorder
from ..core.failure_kinds import Kind
from ..core.httpx_calls.httpx_messages import CompleteResponse, UpstreamResponse, fields_of, headers_of
from ..http1.response_reader import Limits
from ..net.epoll import Reader
from ..policy.hedge import HedgeRules
from ..policy.replicas.ejection import EjectionRules
from ..policy.retry import RetryOn, RetryRules
from ..policy.retry_budget import Budget
from .calls.stream_call import StreamCall
from .client import BreakerRules, Client, ClientStatistics, HealthRules, Policies
from .errors import BadRequest
from .pool.dial import Dial
from .pool.pool import Pool
from .pool.request_head import prepared_fields
from .replicas.balance import PolicyName
from .replicas.origin import Replica
from .replicas.sources import ReplicaSource


def Retry(  # noqa: N802  # named as a class, because it is used as one: retry=Retry(attempts=3)
    attempts: int = 2,
    on: RetryOn | Iterable[Kind | str | int] | None = None,
    backoff: float = 0.025,
    max_backoff: float = 0.25,
) -> RetryRules:
    """Return rules of retries, for ``Transport(retry=…)``.

    A request may be retried in two cases. Either no byte of it was sent. Or its body is in memory, and its method is
    GET, HEAD, OPTIONS, PUT or DELETE (RFC 9110 section 9.2.2) or it has an Idempotency-Key. There is no retry if the
    retry budget is used up, if the breaker has opened, or if the wait would end after the call's deadline.

    Args:
        attempts: number of attempts, including the first and without hedges.
        on: failure kinds and statuses that are retried, such as ``["connect", "reset", 503]``. None: connect, dns,
            reset before the first byte of a response, 502, 503, 504.
        backoff: seconds. The wait before the first retry is random, up to this value; the bound doubles with each
            further retry. No wait is shorter than the upstream's Retry-After.
        max_backoff: seconds. Bound on the random wait.

    Raises:
        ValueError: a number is out of range, or an item of ``on`` cannot be retried.
    """
    if not isinstance(on, RetryOn):
        on = RetryOn() if on is None else RetryOn.of(on)
    return RetryRules(attempts, on, backoff, max_backoff)


def Hedge(after: float | str = "p95", max: int = 1) -> HedgeRules:  # noqa: N802  # as Retry
    """Return rules of hedging, for ``Transport(hedge=…)``.

    A hedge is another attempt of a call while the first is under way; the first success wins. A request is hedged only
    if its body is in memory, and its method is GET, HEAD, OPTIONS, PUT or DELETE or it has an Idempotency-Key. Hedges
    draw on the same budget as retries. See "The Tail at Scale" (Dean and Barroso, 2013) and gRPC's proposal A6.

    Args:
        after: seconds from an attempt to the next hedge; or a percentile (``"p95"``) of the recent latencies of
            attempts, by ``policy.hedge_delay``. With fewer than 100 attempts within a minute there is no percentile,
            and only a retryable failure starts a hedge.
        max: number of hedges beside the first attempt, and again beside each retry; 0: no hedging.

    Raises:
        ValueError: ``after`` is a text but no percentile, or a number is out of range.
        TypeError: ``after`` is neither a number nor a text.
    """
    return HedgeRules.of(after, max)


class Transport(httpx.AsyncBaseTransport):
    """One upstream with its policies, as an ``httpx.AsyncBaseTransport``.

    The host of a request's URL is ignored: a replica of ``urls`` gives scheme, host, port and base path, and the
    request gives path and query. A response is read completely, decoded, and closed before it is returned. With
    ``extensions={"stream": True}``, or if the request's body is a stream, the response is returned after its head. Its
    body is then received piece by piece, and must be read to its end or closed.

    An async context manager; requests may be sent only inside. The same task may enter the transport again while it is
    entered, as httpx's client does. **A request that is cancelled at any point leaves nothing**: no connection, no task
    and no place in the bulkhead. Supported extensions of requests: ``timeout`` (httpx's connect, read, write, pool),
    ``target``, ``stream``. Extensions of responses: ``http_version``, ``reason_phrase``. The transport follows no
    redirects and stores no cookies.

    Args:
        urls: base URLs of the replicas, or a source of replicas (``DnsReplicas``, ``JoinedReplicas``).
        timeout: seconds from the request to the last byte of the response, including all attempts; after that,
            ``CallTimedOut`` is raised. None: no limit but httpx's timeouts, which limit single steps.
        retry: ``Retry(…)``; None: no retries.
        hedge: ``Hedge(…)``; None: no hedging.
        budget: ``Budget(…)`` of retries and hedges together; None: ``Budget()``.
        breaker: ``BreakerRules(…)``; None: no breaker.
        max_concurrency: limit of calls in flight; ``"auto"``: learned from the durations of calls.
        max_queue: number of requests that may wait while ``max_concurrency`` calls are in flight (None: 256); one more
            raises ``Overflow``.
        max_streams: limit of responses at a time that have become streams (``core.call.StreamingCall``).
        coalesce: whether identical safe requests that overlap in time are sent once.
        balance, weights, ejection: how a replica is chosen; see ``replicas.balance.LoadBalancer``.
        health: ``HealthRules(…)``; None: no health checks.
        max_body: limit of a response's body in bytes after decoding; None: 1 MB of JSON, 10 MB of other media types.
        max_idle: number of idle connections that are kept; None: ``max_concurrency``, or 1000 with ``"auto"``.
        connect_timeout, keepalive_expiry, limits, ssl_context, public_only, dial: see ``Pool``.
        reader: watches the sockets; it must run as long as the transport is entered. None: a reader of its own.
        name: name of the upstream in records and messages.
        recorder: receives the events of attempts, and the records of breaker and replicas.
        rng: source of all randomness; None: a generator of the transport's own.

    Raises:
        ValueError: no replica, an unknown load-balancing policy, weights that do not fit the replicas, or a number out
            of range.
        BadRequest: as ``Replica.parse``; or ``HealthRules.path`` is no path with an optional query.
        httpx.InvalidURL: as ``Replica.parse``.
    """

    def __init__(
        self,
        urls: Sequence[str | Replica] | ReplicaSource,
        *,
        timeout: float | None = None,
        retry: RetryRules | None = None,
        hedge: HedgeRules | None = None,
        budget: Budget | None = None,
        breaker: BreakerRules | None = None,
        max_concurrency: int | Literal["auto"] = 100,
        max_queue: int | None = None,
        max_streams: int = 1000,
        coalesce: bool = False,
        balance: PolicyName = "p2c",
        weights: Sequence[int] | None = None,
        ejection: EjectionRules | None = None,
        health: HealthRules | None = None,
        max_body: int | None = None,
        connect_timeout: float | None = 5.0,
        keepalive_expiry: float = 4.0,
        max_idle: int | None = None,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        public_only: bool = False,
        dial: Dial | None = None,
        reader: Reader | None = None,
        name: str = "upstream",
        recorder: Recorder = NULL,
        rng: random.Random | None = None,
    ) -> None:
        self._timeout = _checked_timeout(timeout)
        self._recorder = recorder
        policies = Policies(
            coalesce=coalesce,
            breaker=breaker,
            max_concurrency=max_concurrency,
            max_queue=max_queue,
            max_streams=max_streams,
            retry=retry,
            hedge=hedge,
            budget=budget or Budget(),
            balance=balance,
            weights=weights,
            ejection=ejection,
            health=health,
            max_body=max_body,
            connect_timeout=connect_timeout,
        )
        pool = Pool(
            connect_timeout=connect_timeout,
            keepalive_expiry=keepalive_expiry,
            max_connections=None,
            max_idle=policies.max_idle if max_idle is None else max_idle,
            limits=limits,
            ssl_context=ssl_context,
            public_only=public_only,
            dial=dial,
            reader=reader,
        )
        self.client = Client(name, urls, policies, pool, rng=rng, recorder=recorder)

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.client.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the idle connections, without waiting. The transport remains usable while it is entered."""
        await self.client.pool.aclose()

    def statistics(self) -> ClientStatistics:
        """A snapshot."""
        return self.client.statistics()

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """Make a call, without starting it; see ``core.call.Caller``. Compositions make calls in this way."""
        return self.client.new_call(prepared, context, mode)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make a call with ``request`` and return its response. Cancelled, it cancels the call.

        Raises:
            UpstreamError: the failure of the call (``errors.py``); each is an httpx exception as well.
            NotRunningError: the transport is not entered, or was left before the call had a connection.
            Exception: an exception of the request's own body stream.
        """
        began = trio.current_time()
        owner = SingleCallOwner()
        extensions = request.extensions
        steps = _step_timeouts(extensions["timeout"]) if "timeout" in extensions else None
        context = CallContext(
            owner,
            request.method,
            self.client.name,
            None,
            math.inf if self._timeout is None else began + self._timeout,
            self._recorder,
            limit=self._timeout,
            steps=None if steps is None or steps == StepTimeouts() else steps,
            takes_attempts=getattr(self._recorder, "takes_attempts", True),
        )
        prepared = _prepared_request(request)
        if prepared.body is not None or extensions.get("stream"):
            return await self._stream(prepared, context, owner)
        call = await owner.perform(self.client.new_call(prepared, context))
        try:
            _raise(call)
            assert call.status is not None
            return CompleteResponse(
                call.status, call.fields, call.content, _extensions(call), trio.current_time() - began
            )
        finally:
            del call  # The error's traceback refers to this frame: a cycle.

    async def _stream(self, prepared: PreparedRequest, context: CallContext, owner: SingleCallOwner) -> httpx.Response:
        call = StreamCall(self.client, prepared, context)
        await owner.perform(call)
        try:
            _raise(call)
            assert call.status is not None
            headers = headers_of(call.fields)
            return UpstreamResponse(
                call.status, headers=headers, stream=_ReceivedBody(call), extensions=_extensions(call)
            )
        finally:
            del call  # The error's traceback refers to this frame: a cycle.


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise ValueError("timeout must be more than 0 seconds")
    return timeout


def _step_timeouts(given: Mapping[str, float | None]) -> StepTimeouts:
    """Convert httpx's ``timeout`` extension.

    ``connect`` is converted differently from the others: None to infinity (no limit), and if it is absent, to None (the
    upstream's own limit).
    """
    connect = given.get("connect", 0.0)
    return StepTimeouts(
        math.inf if connect is None else connect or None, given.get("read"), given.get("write"), given.get("pool")
    )


def _prepared_request(request: httpx.Request) -> PreparedRequest:
    """Convert an httpx request to the request of a call.

    Raises:
        BadRequest: the ``target`` extension is not bytes, or the body is a synchronous stream.
    """
    target = request.extensions.get("target") or request.url.raw_path
    if not isinstance(target, bytes):
        raise BadRequest("the target extension is not bytes")
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return PreparedRequest(request.method, target, prepared_fields(fields_of(request.headers)), request.read())
    if not isinstance(stream, httpx.AsyncByteStream):
        raise BadRequest("the body is a synchronous stream; pass an asynchronous stream")
    return PreparedRequest(request.method, target, fields_of(request.headers), body=stream)


def _extensions(call: Call) -> dict[str, bytes]:
    head = getattr(call, "head", None)
    return {} if head is None else {"http_version": head.version, "reason_phrase": head.reason}


def _raise(call: Call) -> None:
    """Raise the call's error, if it has one."""
    error = call.error
    if error is not None:
        # The error's traceback refers to this frame and the caller's, which refers to the call. The call must not refer
        # to the error as well: a cycle would wait for the garbage collector.
        call.error = None
        try:
            raise error
        finally:
            del error


class _ReceivedBody(httpx.AsyncByteStream):
    """Body stream of a ``StreamCall``, and its own iterator, so that no generator waits for the garbage collector."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if data := await self._call.receive():
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._call.aclose()
