"""httpx transport: one upstream with its policies, for any httpx user on trio."""

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
from ..core.httpx_messages import CompleteResponse, UpstreamResponse, fields_of, headers_of
from ..http1.response_reader import Limits
from ..net.epoll import AnyReader
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


def Retry(  # noqa: N802  # reads as the option that it is: retry=Retry(attempts=3)
    attempts: int = 2,
    on: RetryOn | Iterable[Kind | str | int] | None = None,
    backoff: float = 0.025,
    max_backoff: float = 0.25,
) -> RetryRules:
    """The rules of retries (``policy.retry.RetryRules``).

    Repeated are GET, HEAD, OPTIONS, PUT and DELETE (RFC 9110 section 9.2.2), and any method with an Idempotency-Key, if
    the body is in memory; and any method of which no byte was sent, because there was no connection.

    Args:
        attempts: the first one included.
        on: kinds and statuses, such as ``["connect", "reset", 503]``; None for connect, dns, reset before the first
            byte, 502, 503 and 504.
        backoff: seconds; the random wait before the first retry is at most that, and twice as much before each next. It
            is never shorter than the upstream's Retry-After.
        max_backoff: seconds; no random wait is longer.

    Raises:
        ValueError: numbers out of range, or an ``on`` that cannot be retried on.
    """
    if not isinstance(on, RetryOn):
        on = RetryOn() if on is None else RetryOn.of(on)
    return RetryRules(attempts, on, backoff, max_backoff)


def Hedge(after: float | str = "p95", max: int = 1) -> HedgeRules:  # noqa: N802  # as Retry
    """The rules of hedges: another attempt beside a slow one, of which the first success wins.

    Hedged are GET, HEAD, OPTIONS, PUT and DELETE, and any method with an Idempotency-Key, if the body is in memory. See
    "The Tail at Scale" (Dean and Barroso, 2013) and gRPC's proposal A6.

    Args:
        after: seconds, or a percentile (``"p95"``) of the time that attempts take at most of the replicas, of late
            (``policy.hedge_delay``). Until there are 100 of them within a minute, only failures start hedges.
        max: hedges of a call, each ``after`` the one before; 0 for none.

    Raises:
        ValueError: a percentile that is none, or numbers out of range.
    """
    return HedgeRules.of(after, max)


class Transport(httpx.AsyncBaseTransport):
    """One upstream, with whatever policies it is given, as an ``httpx.AsyncBaseTransport``.

    Each request goes to one of ``urls``, whatever the host of its own URL: the replica gives scheme, host, port and the
    base path, the request the path and the query. A response is read whole, within ``max_body``, decoded and closed
    when it is returned; with ``extensions={"stream": True}``, or where the request's body is a stream, it is received
    piece by piece as it comes, and must be read to its end or closed.

    An async context manager, and works only inside it. It may be entered again by the same task while it is (httpx's
    client does so). **A request that is cancelled at any point leaves nothing.** Of the extensions it honours
    ``timeout`` (httpx's connect, read, write, pool) and ``target``; a response has ``http_version`` and
    ``reason_phrase``. It follows no redirects and keeps no cookies.

    Args:
        urls: base URLs of the replicas, or a source of replicas (``DnsReplicas``, ``JoinedReplicas``).
        timeout: seconds from a request to the last byte of its answer, all attempts included; ``CallTimedOut`` then.
            None for no such limit: httpx's own limits are of single steps.
        retry: ``Retry(…)``.
        hedge: ``Hedge(…)``.
        budget: of retries and hedges together (``Budget``).
        breaker: ``BreakerRules(…)``.
        max_concurrency: calls in flight, or ``"auto"``: learned from how long they take.
        max_queue: calls that wait for a place (None: 256); one more is an ``Overflow``.
        coalesce: whether identical safe requests that overlap are made once.
        balance, weights, ejection, health: which replica is taken (``balance.LoadBalancer``), and how they are checked.
        max_body: bytes of a body after decoding; None: 1 MB of JSON, 10 MB of anything else.
        connect_timeout, keepalive_expiry, max_idle, limits, ssl_context, public_only, dial: as of ``Pool``.
        reader: watches the sockets; it must run as long as this is entered. None: one of its own.
        name: what records and messages call the upstream.
        recorder: hears of attempts, breakers, replicas.
        rng: where all chance comes from.

    Raises:
        ValueError: no replica, or numbers out of range.
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
        reader: AnyReader | None = None,
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
        """Close the idle connections. The transport itself ends with its ``async with``."""
        await self.client.pool.aclose()

    def statistics(self) -> ClientStatistics:
        """A snapshot."""
        return self.client.statistics()

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        """See ``core.call.Caller``: a composition may use this as one of its upstreams."""
        return self.client.new_call(prepared, context, mode)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make the call.

        Raises:
            UpstreamError: why there is no response, of a kind; each is an httpx exception too.
            NotRunningError: outside of the ``async with``.
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
            del call  # The traceback of its error holds this frame.

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
            del call  # The traceback of its error holds this frame.


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise ValueError("a limit is more than 0 seconds")
    return timeout


def _step_timeouts(given: Mapping[str, float | None]) -> StepTimeouts:
    """Step limits of httpx's ``timeout``. Its None is no limit; for what is absent the upstream's own limit holds."""
    connect = given.get("connect", 0.0)
    return StepTimeouts(
        math.inf if connect is None else connect or None, given.get("read"), given.get("write"), given.get("pool")
    )


def _prepared_request(request: httpx.Request) -> PreparedRequest:
    """The request of a call, made of an httpx request."""
    target = request.extensions.get("target") or request.url.raw_path
    if not isinstance(target, bytes):
        raise BadRequest("the target extension is not bytes")
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        return PreparedRequest(request.method, target, prepared_fields(fields_of(request.headers)), request.read())
    if not isinstance(stream, httpx.AsyncByteStream):
        raise BadRequest("the body is a synchronous stream; trio needs an asynchronous one")
    return PreparedRequest(request.method, target, fields_of(request.headers), body=stream)


def _extensions(call: Call) -> dict[str, bytes]:
    head = getattr(call, "head", None)
    return {} if head is None else {"http_version": head.version, "reason_phrase": head.reason}


def _raise(call: Call) -> None:
    """Raise the call's error, if it has one."""
    error = call.error
    if error is not None:
        # The traceback holds this frame, and the caller's, which holds the call: without this they would all wait for
        # the garbage collector.
        call.error = None
        try:
            raise error
        finally:
            del error


class _ReceivedBody(httpx.AsyncByteStream):
    """Body stream of a ``StreamCall``. It is its own iterator, so no generator is left to the garbage collector."""

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
