"""One call: its rules, its request as bytes, and what its response means.

Used by plans (``run.py``, ``each.py``) and by code (``gather.py``) alike; it sees an upstream only as an httpx
transport. It opens no nursery, and a scope only where the call's own limit is nearer than the route's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as dataclass_replace
from typing import Any, Literal, NamedTuple

import httpx
import trio

from ..charsets import charset_of
from ..config.schema import Call
from ..errors import UpstreamError
from ..events import Noted
from ..inflight import Prepared
from ..kinds import Kind
from ..messages import Complete, request_of, response_fields
from ..model import FACTS, JSON_MAX, OTHER_MAX, CallFacts, FailedItem, Failure, Json, PassedBody
from ..policy.sharing import GATEWAY_FIELDS
from .decode import BadBodyError, decode_json, decode_text
from .overrides import overrides_of

_CACHING = frozenset({b"cache-control", b"age"})

ACCEPT = {"json": b"application/json", "text": b"*/*", "none": b"*/*"}
"""What a call asks for, by how it will decode, unless its headers say otherwise."""

CLOSE_SECONDS = 1.0
"""How long closing a response may take when nobody waits for it any more."""

PASSED = frozenset({400, 403, 404, 409, 410, 412, 422, 429})
"""The upstream's statuses that a client gets as they are, unless the call says otherwise."""


class CallFailedError(Exception):
    """A call gave no value."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Landed(NamedTuple):
    """What a call brought."""

    value: Json
    headers: tuple[tuple[str, str], ...] = ()
    failed_items: tuple[FailedItem, ...] = ()


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a call is allowed, and what its statuses mean. Fixed when the plan is made."""

    name: str
    upstream: str
    optional: bool = False
    has_default: bool = False
    default: Json = None
    timeout: float | None = None
    """Seconds; None: only the route's deadline."""
    max_body: int | None = None
    decode: Literal["json", "text", "none"] = "json"
    ok: frozenset[int] = frozenset()
    """Empty: every 2xx."""
    null_on: frozenset[int] = frozenset()
    passed: frozenset[int] = PASSED
    pass_body: bool = False
    answer_headers: frozenset[bytes] = frozenset()
    """The response's fields that the route's answer forwards, in lower case."""
    extensions: Mapping[str, Any] = field(default_factory=dict)
    """What the call asks of its upstream's layers (``overrides.py``)."""
    kept: frozenset[bytes] = field(init=False)
    """The response's fields that matter to the answer in any way."""

    def __post_init__(self) -> None:
        """Make at load what the call needs at each of its ends."""
        object.__setattr__(self, "kept", _CACHING | self.answer_headers)

    @classmethod
    def of(
        cls,
        name: str,
        call: Call,
        *,
        timeout: float | None,
        max_body: int | None,
        answer_headers: frozenset[bytes] = frozenset(),
    ) -> CallRules:
        """The rules of a call of the configuration; ``timeout`` and ``max_body`` are its upstream's."""
        passed = call.pass_status
        if passed is None:
            passed = (*PASSED, 401) if "authorization" in call.forward_headers else tuple(PASSED)
        return cls(
            name,
            call.upstream,
            call.optional,
            call.has_default,
            call.default,
            call.timeout or timeout,
            call.max_body or max_body or (JSON_MAX if call.decode == "json" else OTHER_MAX),
            call.decode,
            frozenset(call.ok),
            frozenset(call.null_on),
            frozenset(passed),
            call.pass_body,
            answer_headers,
            overrides_of(call),
        )


async def ask(rules: CallRules, prepared: Prepared, facts: CallFacts, transport: httpx.AsyncBaseTransport) -> Landed:
    """Make the call and give its value.

    Cancelled at any point, it leaves nothing: the transport closes what it holds.

    Raises:
        CallFailedError: no value came, for whatever reason but a cancel from outside.
    """
    deadline = trio.current_time() + rules.timeout if rules.timeout is not None else facts.deadline
    if deadline >= facts.deadline:
        return landed(rules, prepared.method, await _send(rules, prepared, facts, transport))
    with trio.CancelScope(deadline=deadline) as scope:
        response = await _send(rules, prepared, dataclass_replace(facts, deadline=deadline), transport)
    if scope.cancelled_caught:
        raise CallFailedError(too_late(rules))
    return landed(rules, prepared.method, response)


async def _send(
    rules: CallRules, prepared: Prepared, facts: CallFacts, transport: httpx.AsyncBaseTransport
) -> httpx.Response:
    # The target extension and the balance layer say where it goes.
    extensions = {
        "target": prepared.target,
        FACTS: facts,
        GATEWAY_FIELDS: prepared.gateway_names,
        **rules.extensions,
    }
    request = request_of(prepared.method, prepared.fields, prepared.content, extensions)
    try:
        response = await transport.handle_async_request(request)
        if not response.is_closed:
            await _read(response)
    except Exception as error:
        raise CallFailedError(failure_of(error, facts)) from error
    return response


def failure_of(error: Exception, facts: CallFacts) -> Failure:
    """The failure that an exception of a transport means; a crash of one is recorded."""
    if isinstance(error, UpstreamError):
        return Failure.from_error(error)
    if isinstance(error, httpx.HTTPError):
        # A transport that is not ours: a user's own, or httpx's mock in a test.
        return Failure.of(_kind_of(error), f"{type(error).__name__}: {error}")
    facts.recorder.record(
        Noted("error", "call.crashed", f"call {facts.call} crashed", facts.request, {"call": facts.call}, error)
    )
    return Failure.of(Kind.INTERNAL, f"{type(error).__name__} in a layer")


def too_late(rules: CallRules) -> Failure:
    """The failure of a call that its own limit has ended."""
    return Failure.of(Kind.TIMEOUT, f"no answer within the call's limit of {rules.timeout:g} s")


async def _read(response: httpx.Response) -> None:
    """Read the body of a transport that is not ours (ours give whole responses), and leave nothing open."""
    try:
        await response.aread()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await response.aclose()


def _kind_of(error: httpx.HTTPError) -> Kind:
    if isinstance(error, httpx.TimeoutException):
        return Kind.TIMEOUT
    if isinstance(error, httpx.ConnectError):
        return Kind.CONNECT
    if isinstance(error, httpx.NetworkError):
        return Kind.RESET
    if isinstance(error, (httpx.RemoteProtocolError, httpx.DecodingError)):
        return Kind.MALFORMED
    return Kind.INTERNAL


def landed(rules: CallRules, method: str, response: httpx.Response) -> Landed:
    """What a whole response means to a call.

    Raises:
        CallFailedError: its status is no success, or its body is not what it should be.
    """
    status = response.status_code
    headers = _kept(rules, response)
    if status in rules.null_on:
        return Landed(None, headers)
    if status not in rules.ok if rules.ok else not 200 <= status <= 299:
        raise CallFailedError(_status_failure(rules, response))
    if rules.decode == "none" or status in (204, 205) or method == "HEAD":
        return Landed(None, headers)
    try:
        if rules.decode == "json":
            return Landed(decode_json(response.content), headers)
        charset = charset_of(response.headers.get("content-type", ""))
        return Landed(decode_text(response.content, charset), headers)
    except BadBodyError as error:
        raise CallFailedError(Failure.of(Kind.BAD_BODY, str(error))) from error


def _kept(rules: CallRules, response: httpx.Response) -> tuple[tuple[str, str], ...]:
    """The fields that may matter to the answer. To decode all of them would cost more than to decode the JSON."""
    wanted = rules.kept
    if type(response) is Complete and response.names is not None and wanted.isdisjoint(response.names):
        return ()  # Of most nothing matters, and nobody has had them in hand since they came.
    kept = [field for field in response_fields(response) if field[1] in wanted]
    return tuple((lower.decode("latin-1"), value.decode("latin-1")) for _, lower, value in kept) if kept else ()


def _status_failure(rules: CallRules, response: httpx.Response) -> Failure:
    status = response.status_code
    passed = status in rules.passed
    body = None
    if passed and rules.pass_body:
        body = PassedBody(response.content, response.headers.get("content-type", "application/octet-stream"))
    return Failure(
        Kind.STATUS,
        status if passed else 502,
        f"the upstream answered {status}",
        received_status=status,
        body=body,
        retry_after=response.headers.get("retry-after") if passed else None,
    )
