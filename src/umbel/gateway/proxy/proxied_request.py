"""Proxied request: one request that is passed on to an upstream, or to a fallback, and the response to it.

Theory
------
*Problem.* A request and its response are passed on while both are under way, for seconds or for hours, and each side
may leave at any moment. The response to the client is an upstream's only from the moment at which the head of that
response is there; until then it may become a problem document, or the request may go to another upstream.

*Steps*: ``begin`` sends the request and waits for the head of a response; ``head`` gives its status and fields;
``receive`` gives its body; ``aclose`` ends the exchange. If no upstream has a response, ``begin`` returns the problem
document instead.

*The body of the request* is asked for in the task that sends it (``Upload``), so nothing is read ahead. A body whose
first piece is the whole of it is sent together with the head. For this, ``begin`` waits for the first piece of a body
of known length, unless the client waits for 100 (Continue).

*Repetition.* Nothing is sent again once a byte of the request's body was sent. Retries and hedges are the call's matter
(``upstream/calls/stream_call.py``), which gets a body as one to be sent once. A fallback is tried if the call has
failed without a response, and if the request may be sent once more: nothing of it was sent, or it has no body and an
idempotent method. A response that the gateway itself refuses, because no place for a stream is free, has no
fallback: its upstream has done what the request asks for.

*Streams.* A response becomes a stream when its head says that it is one (``text/event-stream``, NDJSON, 101), or after
``STREAM_AFTER`` seconds of its body. A stream counts in ``max_streams`` of the server and of the upstream, and no
longer in ``max_in_flight`` and in the bulkhead. If no place for a stream is free, a response that says that it is one
is refused with 503, and another one keeps its places.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from ...composition.answer.result import Result, own_time
from ...composition.proxy.proxy_call import BrokenResponseError, ProxyCall
from ...composition.request.request_template import gateway_fields
from ...composition.text.expression import ExpressionError
from ...core.call import PreparedRequest
from ...core.errors import RequestError
from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError
from ...core.model import Failure, Inputs, Json, Outcome
from ...upstream.mirrors import RequestCopy
from ...upstream.pool.request_head import IDEMPOTENT
from ..response.answer import answer
from .upload import Upload, check_size
from .websocket_handshake import SWITCHED, WebSocketHandshake, rules_of

if TYPE_CHECKING:
    from ...core.call import StreamingCall
    from ...core.http.header_field import Field
    from ...net.timers import Timer
    from ..request_context import RequestContext
    from ..response.reply import Reply
    from .proxy_rules import ProxyRules
    from .upload import Receive

COPY_SECONDS = 10.0
"""Seconds that a copy for a mirror may last, if ``first_byte`` is off."""
STREAM_AFTER = 5.0
"""Seconds of its body after which a response becomes a stream."""
_UNSENT = frozenset({Kind.CONNECT, Kind.DNS, Kind.OVERFLOW, Kind.BREAKER_OPEN})
"""Kinds of failures before the first byte of a request was sent."""
_STREAMS = frozenset({b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})
_TRAILERS: Field = (b"te", b"te", b"trailers")


class ProxiedRequest:
    """One proxied request; see the module.

    Args:
        rules: the rules of the route.
        ctx: the request context.
        path: the values of the rule's variables.
        receive: receives the next piece of the request's body.
    """

    __slots__ = (
        "_calls",
        "_content",
        "_ctx",
        "_path",
        "_receive",
        "_rules",
        "_timer",
        "_upload",
        "_values",
        "call",
        "handshake",
    )

    def __init__(self, rules: ProxyRules, ctx: RequestContext, path: Mapping[str, Any], receive: Receive) -> None:
        self._rules = rules
        self._ctx = ctx
        self._path = path
        self._receive = receive
        self._values: Mapping[str, Json] = {}
        """The evaluation context of the plan's templates."""
        self._upload: Upload | None = None
        self._content: bytes | None = None
        """The whole body, if it has come with the head."""
        self._calls: list[ProxyCall] = []
        self._timer: Timer | None = None
        self.handshake: WebSocketHandshake | None = None
        """The handshake, if the request opens a WebSocket; else None."""
        self.call: ProxyCall
        """The call whose response goes to the client. Unset until ``begin`` has returned None."""

    # The request.

    async def begin(self) -> Reply | None:
        """Pass the request on, and wait for the head of a response. Return a problem document if there is none.

        Raises:
            RequestError: 400, 403 or 413, the request cannot be passed on; or 503, the application does not run.
            ClientGoneError: the client has left, or the server has sent an error response itself.
        """
        rules, ctx = self._rules, self._ctx
        inbound, proxy = ctx.inbound, rules.proxy
        runtime = ctx.serving.runtime or rules.context.require_runtime()
        if inbound.gone:
            raise ClientGoneError("the client left before the call began")
        check_size(inbound.content_length, proxy.max_body)
        self._values = rules.values(ctx, self._path)
        if inbound.websocket:
            origin = ctx.origin.fields.by_name.get("origin")
            self.handshake = WebSocketHandshake(inbound, rules_of(proxy.websocket), origin)
            if not inbound.became_stream():  # Before the upstream is asked.
                raise RequestError(503, "The gateway has as many streams as it can.")
        await self._receive_first()
        failure: Failure | None = None
        upstreams = self._upstreams()
        for upstream in upstreams:
            call = ProxyCall(
                upstream,
                runtime.callers[upstream],
                self._prepared(upstream),
                "upgrade" if inbound.websocket else "stream",
                rules.limits,
                ctx.facts,
                ctx.recorder,
                self._inform,
                hold_interim=self._is_repeatable and upstream != upstreams[-1],
            )
            self._calls.append(call)
            inbound.on_gone(call.client_gone)
            failure = await call.begin()
            if failure is None:
                failure = self._refusal(call)
                if failure is None:
                    self.call = call
                    return None
                await call.aclose()
                break  # This upstream has done what the request asks for.
            await call.aclose()
            if not self._may_repeat(call, failure):
                break
        assert failure is not None, "a proxy route has an upstream"
        outcomes = self._keep_outcomes()
        own_ms = own_time(ctx.facts.started_at, trio.current_time(), outcomes) * 1000
        return answer(
            Result(outcomes, failure, completed=False, own_ms=own_ms, headers=failure.fields), rules.answer, ctx
        )

    def _upstreams(self) -> Sequence[str]:
        """The upstreams that may get the request, in the order in which they are tried.

        Raises:
            RequestError: 400, the evaluation of ``split_key`` exceeds a bound.
        """
        proxy = self._rules.proxy
        if proxy.choice is None:
            return (proxy.upstream, *proxy.fallback)
        try:
            chosen = proxy.choice.upstream(self._values, random.random)
        except ExpressionError as error:
            raise RequestError(400, "A value of the request cannot be used to choose an upstream.") from error
        return (chosen, *(name for name in proxy.fallback if name != chosen))

    async def _receive_first(self) -> None:
        """Receive the first piece of a body of known length, and choose the form in which the body is sent."""
        inbound, limit = self._ctx.inbound, self._rules.proxy.max_body
        if inbound.content_length == 0 or self.handshake is not None:
            return
        first = b""
        if inbound.content_length is not None and not inbound.expects_continue:
            first = await self._receive()
            if inbound.body_complete:
                self._content = first
                return
        self._upload = Upload(self._receive, first, limit, inbound)

    def _prepared(self, upstream: str) -> PreparedRequest:
        """The request for an upstream.

        Raises:
            RequestError: 400, a value of the request cannot be sent in its place.
        """
        ctx, proxy, inbound = self._ctx, self._rules.proxy, self._ctx.inbound
        origin, values = ctx.origin, self._values
        authorized = ctx.credential is not None and ctx.credential.name == "authorization"
        headers = proxy.request_fields(origin.headers, values, upstream, authorized=authorized)
        if inbound.takes_trailers:
            headers.append(_TRAILERS)
        if self.handshake is not None:
            headers = self.handshake.complete(headers)
        inputs = Inputs(request_id=ctx.facts.request_id, forwarded=origin.via(), forwarded_for=origin.forwarded_for())
        return PreparedRequest(
            ctx.facts.method,
            proxy.target(ctx.target, self._path, values, upstream),
            headers,
            self._content,
            gateway_fields(inputs, forwarded=proxy.destinations[upstream].forwarded),
            self._upload,
            host=_host(headers) if proxy.preserve_host else None,
            expects_continue=self._upload is not None and inbound.expects_continue,
            once=bool(self._content),
        )

    def _inform(self, status: int, fields: Sequence[Field]) -> None:
        """Pass on an interim response of the upstream."""
        self._ctx.inbound.inform_soon(status, self._rules.proxy.trailer_fields(fields))

    def _may_repeat(self, call: ProxyCall, failure: Failure) -> bool:
        """Whether the request may go to another upstream after ``failure`` of ``call``."""
        if self._upload is not None and self._upload.begun:
            return False
        attempts = () if call.outcome is None else call.outcome.attempts
        if failure.kind in _UNSENT and all(attempt.kind in _UNSENT for attempt in attempts):
            return True
        return self._is_repeatable

    @property
    def _is_repeatable(self) -> bool:
        """Whether the request may be repeated after it was sent: it has no body and an idempotent method."""
        return self._upload is None and self._content is None and self._ctx.facts.method in IDEMPOTENT

    def _refusal(self, call: ProxyCall) -> Failure | None:
        """The failure of a response that cannot be passed on; None if it can.

        It says that it is a stream, and no place for one is free; or it does not prove the key of a WebSocket.
        """
        response = call.response
        failure = None if self.handshake is None else self.handshake.failure(response.status, response.fields)
        if failure is None and (response.status == SWITCHED or _is_stream(response.fields)):
            if response.become_stream() and self._ctx.inbound.became_stream():
                return None
            failure = Failure.of(Kind.OVERFLOW, "no place for another stream is free")
        if failure is not None:
            call.refuse(failure)
        return failure

    def _keep_outcomes(self) -> tuple[Outcome, ...]:
        """Write the outcomes of the calls that have ended into the request context."""
        outcomes = tuple(call.outcome for call in self._calls if call.outcome is not None)
        self._ctx.outcomes = outcomes
        return outcomes

    # The response.

    @property
    def response(self) -> StreamingCall:
        """The call with the response."""
        return self.call.response

    def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The status of the response, and the fields that the client gets. To be called once."""
        response, ctx = self.call.response, self._ctx
        assert response.status is not None
        fields = self._rules.proxy.response_fields(
            response.fields, ctx.target, self._path, self._values, self.call.upstream, host=ctx.origin.host
        )
        upgrade = response.head.upgrade if response.status == 426 and response.head is not None else None
        if upgrade is not None:  # What the resource needs (RFC 9110 section 15.5.22); the rest belongs to a connection.
            fields.append((b"upgrade", upgrade))
        if not response.response_ended and response.status != SWITCHED:
            runtime = ctx.serving.runtime
            if runtime is not None:
                self._timer = runtime.timers.add(trio.current_time() + STREAM_AFTER, self._become_stream)
        return response.status, fields

    def _become_stream(self) -> None:
        """Timer: count the response as a stream, if places are free."""
        self._timer, runtime = None, self._ctx.serving.runtime
        both = self.call.response.become_stream() and self._ctx.inbound.became_stream()
        if not both and runtime is not None:  # A place may become free.
            self._timer = runtime.timers.add(trio.current_time() + STREAM_AFTER, self._become_stream)

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; empty at its end.

        Raises:
            ClientGoneError: the client has left, or the response broke off. In the second case the request context has
                the reason, and the server aborts the response to the client.
        """
        try:
            return await self.call.receive()
        except (BrokenResponseError, RequestError) as error:
            ctx = self._ctx
            ctx.kind = error.failure.kind if isinstance(error, BrokenResponseError) else Kind.BAD_REQUEST
            ctx.detail = str(error)
            ctx.inbound.crash_recorded = True
        raise ClientGoneError("the response broke off")

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailer fields for the client, once the response has ended."""
        return self._rules.proxy.trailer_fields(self.call.response.trailers)

    async def aclose(self) -> None:
        """End the exchange, in any state. Waits at most a second for the sender of the request's body."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        inbound = self._ctx.inbound
        inbound.on_gone(None)
        if self._calls:
            if inbound.gone:
                self._calls[-1].client_gone()
            await self._calls[-1].aclose()
            self._keep_outcomes()
            self._send_copy()

    def _send_copy(self) -> None:
        """Send a copy of the request to the mirror, if there is one and chance chooses the request. Does not wait."""
        mirror, runtime, facts = self._rules.proxy.mirror, self._ctx.serving.runtime, self._ctx.facts
        if mirror is None or runtime is None or self._upload is not None or self.handshake is not None:
            return
        if any(call.upstream == mirror.upstream for call in self._calls):
            return  # It has got the request itself, by a split or as a fallback.
        if facts.method in mirror.methods and random.random() < mirror.share:
            seconds = self._rules.limits.first_byte or COPY_SECONDS
            name = mirror.upstream
            runtime.mirrors.send(RequestCopy(name, name, self._copy, facts, seconds, None, "stream"))

    def _copy(self) -> PreparedRequest | None:
        """The request for the mirror; None: a value of the request cannot be sent in its place."""
        mirror = self._rules.proxy.mirror
        assert mirror is not None
        try:
            return self._prepared(mirror.upstream)
        except RequestError:
            return None


def _host(fields: Sequence[Field]) -> bytes | None:
    """The value of Host; None if there is none."""
    return next((value for _, lower, value in fields if lower == b"host"), None)


def _is_stream(fields: Sequence[Field]) -> bool:
    """Whether the fields of a response say that it is a stream."""
    for _, lower, value in fields:
        if lower == b"content-type" and value.partition(b";")[0].strip(b" \t").lower() in _STREAMS:
            return True
    return False
