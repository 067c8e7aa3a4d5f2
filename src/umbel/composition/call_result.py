"""Result of a call: the value or the failure that a response means under the call's rules. Pure, except for records."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import httpx
import msgspec

from ..config.schema import sections
from ..core.errors import UpstreamError
from ..core.events import LogMessage
from ..core.failure_kinds import Kind
from ..core.http.charsets import charset_of
from ..core.http.header_field import Field, raw_value
from ..core.model import JSON_MAX, OTHER_MAX, FailedItem, Failure, Json, PassedBody
from .answer.status_fields import REDIRECTS, fields_of_status, missing_field
from .decode import BadBodyError, EmptyBodyError, NotStrictJsonError, decode_repaired, decode_strict, decode_text
from .decode_large import decode_in_thread, holds_many_values
from .json_check import checked_or_decoded, is_worth_a_check
from .request.call_policies import NO_POLICIES, CallPolicies
from .request.conditions import passed_for_conditions, validators

if TYPE_CHECKING:
    from ..core.call import Call, CallContext, Caller
    from ..core.events import Recorder
    from ..core.model import RequestFacts

_SUCCESS = frozenset(range(200, 300))
_WITHOUT_CONTENT = frozenset({204, 205})
_CACHING = frozenset({b"cache-control", b"age", b"vary"})

PASSED_BY_DEFAULT = frozenset({400, 403, 404, 409, 410, 412, 422, 429})
"""The error statuses that the answer takes over from a call without ``pass_status``."""


Redirects = Literal["fail", "pass", "follow"]
"""What a redirect of the upstream means: a failure, the answer, or another request."""


def passed_statuses(
    given: Collection[int] | None, *, credential: bool, redirects: Redirects = "fail"
) -> frozenset[int]:
    """The error statuses, and with ``redirects = "pass"`` the redirects, that the answer takes over from a call.

    Args:
        given: the call's ``pass_status``; None: the default ones.
        credential: the call carries a credential of the client, so that a 401 is about the client.
        redirects: the call's ``redirects``.
    """
    passed = PASSED_BY_DEFAULT | {401} if credential else PASSED_BY_DEFAULT
    if given is not None:
        passed = frozenset(given)
    return passed | REDIRECTS if redirects == "pass" else passed


class CallFailedError(Exception):
    """A call has failed with ``failure``."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class CallResult(msgspec.Struct, frozen=True):
    """The value of a successful call, and the parts of its response that affect the answer."""

    value: Json
    headers: tuple[tuple[str, str], ...] = ()
    """The response fields that ``CallRules.kept_fields`` names, and those that belong to ``answer_status``. Names are
    in lower case."""
    failed_items: tuple[FailedItem, ...] = ()
    """The failed items of an optional ``each``."""
    answer_status: int | None = None
    """The status that the answer takes over from the response; None: the route's status."""


@dataclass(frozen=True, slots=True)
class CallRules:
    """The rules of a call: its limits, its policies, and the meaning of each status."""

    name: str
    upstream: str
    optional: bool = False
    has_default: bool = False
    default: Json = None
    timeout: float | None = None
    """Seconds; None: only the route's deadline holds."""
    max_body: int | None = None
    """Bytes of the response body after decompression; None: the upstream's bound."""
    decode: Literal["json", "text", "none"] = "json"
    ok: frozenset[int] = frozenset()
    """The statuses of success; empty: every 2xx."""
    null_on: frozenset[int] = frozenset()
    """The statuses that give the value null."""
    pass_status: frozenset[int] = PASSED_BY_DEFAULT
    """The error statuses that the answer takes over."""
    pass_body: bool = False
    """Whether the answer takes over the error body too."""
    answer_headers: frozenset[bytes] = frozenset()
    """The names of the response fields that the answer forwards, in lower case."""
    policies: CallPolicies = NO_POLICIES
    """The policies that replace those of the upstream."""
    validators: frozenset[bytes] = frozenset()
    """The names of the response fields that the answer needs because the call forwards conditions, in lower case."""
    answering_statuses: frozenset[int] = frozenset()
    """The statuses of success that the answer takes over with their fields: 201 if the route's status is 201; 201, 202
    and 204 if the route's ``status_from`` is this call; 206 and 304 if the call has forwarded the request's
    conditions."""
    caller: Caller | None = None
    """Makes the call in place of the upstream's caller: the call has a ``respond``. None: the upstream's."""
    needs: tuple[str, ...] = ()
    """The names of the calls whose values the call needs, for its outcome."""
    unread: bool = False
    """Whether no expression or template reads the value, so that JSON need not be decoded (``json_check.py``)."""
    kept_fields: frozenset[bytes] = field(init=False)
    """The names of all response fields that may affect the answer, in lower case."""
    json_value_statuses: frozenset[int] = field(init=False)
    """The statuses for which the JSON of the body is the value of the call, without any further check."""

    def __post_init__(self) -> None:
        """Compute the fields that ``result_of`` needs for each response."""
        object.__setattr__(self, "kept_fields", _CACHING | self.answer_headers | self.validators)
        statuses: frozenset[int] = frozenset()
        if self.decode == "json":
            statuses = (self.ok or _SUCCESS) - self.null_on - self.answering_statuses - _WITHOUT_CONTENT
        object.__setattr__(self, "json_value_statuses", statuses)

    @classmethod
    def of(
        cls,
        name: str,
        call: sections.Call,
        *,
        upstream: str,
        timeout: float | None,
        max_body: int | None,
        redirects: Redirects = "fail",
        answer_headers: frozenset[bytes] = frozenset(),
        credential: bool = False,
        conditions: Collection[str] = (),
        answering: frozenset[int] = frozenset(),
        caller: Caller | None = None,
    ) -> CallRules:
        """The rules of a configured call.

        Args:
            upstream: the name of the upstream, for records and metrics.
            timeout: the timeout of the upstream in seconds.
            max_body: the bound of the upstream in bytes.
            redirects: the ``redirects`` of the call or of the upstream.
            answer_headers: the names of the response fields that the answer forwards, in lower case.
            credential: the call carries a credential of the client.
            conditions: the names of the conditional request fields that the call forwards.
            answering: the statuses of success that the answer takes over with their fields.
            caller: makes the call in place of the upstream's caller; None: the upstream's.
        """
        passed = passed_statuses(call.pass_status, credential=credential, redirects=redirects)
        if call.pass_status is None:
            passed |= passed_for_conditions(conditions)
        return cls(
            name,
            upstream,
            call.optional,
            call.has_default,
            call.default,
            call.timeout or timeout,
            call.max_body or max_body or (JSON_MAX if call.decode == "json" else OTHER_MAX),
            call.decode,
            frozenset(call.ok),
            frozenset(call.null_on),
            passed,
            call.pass_body,
            answer_headers,
            CallPolicies.of(call, follows=redirects == "follow"),
            validators(conditions),
            answering,
            caller,
        )


def failure_of(error: Exception, context: CallContext) -> Failure:
    """The failure that the error of a call means. An unexpected exception is recorded as a crash."""
    if isinstance(error, UpstreamError):
        return Failure.from_error(error)
    if isinstance(error, httpx.HTTPError):
        # From an httpx transport that is not Umbel's.
        return Failure.of(_kind_of(error), f"{type(error).__name__}: {error}")
    return record_crash(error, context.call, context.request, context.recorder)


def record_crash(error: Exception, call: str, request: RequestFacts | None, recorder: Recorder) -> Failure:
    """Record an unexpected exception with its traceback, and return a failure of kind internal."""
    recorder.record(LogMessage("error", "call.crashed", f"call {call} crashed", request, {"call": call}, error))
    return Failure.of(Kind.INTERNAL, f"{type(error).__name__} in the call")


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


DecodedBody = tuple[Json] | BadBodyError | None
"""A body decoded in a thread: the value in a tuple, or the error; None: not decoded in a thread."""


def needs_decode_thread(rules: CallRules, call: Call) -> bool:
    """Whether the body must be decoded in a thread, since its number of values would block the event loop."""
    return call.error is None and rules.decode == "json" and holds_many_values(call.content, rules.max_body or JSON_MAX)


async def decoded_in_thread(rules: CallRules, call: Call) -> DecodedBody:
    """Decode the body in a thread, and return its value in a tuple, or the error. Cancelled, it abandons the thread."""
    try:
        return (await decode_in_thread(call.content, rules.max_body or JSON_MAX, _charset_of(call)),)
    except BadBodyError as error:
        return error


class BodylessResponse(NamedTuple):
    """A response whose body is absent or unusable. ``result_of`` takes it in place of a call."""

    status: int | None
    fields: Sequence[Field]
    names: Collection[bytes] | None = None
    content: bytes = b""
    note: str = ""


def response_without_body(rules: CallRules, error: Exception) -> BodylessResponse | None:
    """The response of a call that ended with an error in the body; None: no response came, or the call needs the body.

    A body that is too large or badly encoded must not fail a call that does not need the body: a successful write stays
    a success, and a 404 stays a 404.
    """
    answered = error.answered if isinstance(error, UpstreamError) else None
    if answered is None:
        return None
    status, fields = answered
    if status not in rules.null_on:
        success = status in rules.ok if rules.ok else 200 <= status <= 299
        if (success and rules.decode != "none") or (rules.pass_body and status in rules.pass_status):
            return None
    return BodylessResponse(status, fields)


def result_without_content(
    rules: CallRules, method: str, error: Exception, context: CallContext
) -> CallResult | Failure:
    """The result of a call that ended with ``error``: no response came, or the body of the response is unusable.

    Returns:
        The result that the status means, if a response came and the call does not need its body; else a failure.

    Raises:
        CallFailedError: that status is no success.
    """
    bare = response_without_body(rules, error)
    return failure_of(error, context) if bare is None else result_of(rules, method, bare)


def result_of(rules: CallRules, method: str, call: Call | BodylessResponse, decoded: DecodedBody = None) -> CallResult:
    """The result that a complete response means under ``rules``.

    Args:
        method: the method of the call.
        decoded: the body as decoded in a thread; None: it is decoded here.

    Raises:
        CallFailedError: the status is no success, or the body cannot be decoded.
    """
    status, wanted, names = call.status, rules.kept_fields, call.names
    # Most responses have no wanted field. To decode all fields would cost more than to decode the JSON.
    headers = () if names is not None and wanted.isdisjoint(names) else _kept(wanted, call)
    answer_status: int | None = None
    if status not in rules.json_value_statuses:
        if rules.answering_statuses and status in rules.answering_statuses:
            answer_status = status
            named = {name for name, _ in headers}
            headers = (*headers, *(field for field in fields_of_status(status, call.fields) if field[0] not in named))
            if status == 304:
                return CallResult(None, headers, (), status)
        if status in rules.null_on:
            return CallResult(None, headers, (), answer_status)
        if status not in rules.ok if rules.ok else status is None or not 200 <= status <= 299:
            raise CallFailedError(_status_failure(rules, call))
        if rules.decode == "none" or status in _WITHOUT_CONTENT:
            return CallResult(None, headers, (), answer_status)
    if method == "HEAD":
        return CallResult(None, headers, (), answer_status)
    try:
        if decoded is not None:
            if isinstance(decoded, BadBodyError):
                # Raise a new exception: ``decoded`` refers to the old one, whose traceback would refer to this frame.
                # This reference cycle would keep the body in memory until a garbage collection.
                raise BadBodyError(str(decoded))
            value = decoded[0]
        elif rules.decode == "json":
            check = rules.unread and is_worth_a_check(call.content)
            value = checked_or_decoded(call.content) if check else decode_strict(call.content)
        else:
            value = decode_text(call.content, _charset_of(call))
    except NotStrictJsonError:
        value = _decode_repaired(call, headers)
    except BadBodyError as error:
        raise _bad_body(error, headers) from error
    return CallResult(value, headers, (), answer_status)


def _decode_repaired(call: Call | BodylessResponse, headers: tuple[tuple[str, str], ...]) -> Json:
    """The value of a JSON text that strict decoding refuses; null for an empty body.

    An empty body must not fail a successful write, as with status 204.
    """
    try:
        return decode_repaired(call.content, _charset_of(call))
    except EmptyBodyError:
        return None
    except BadBodyError as error:
        raise _bad_body(error, headers) from error


def _bad_body(error: BadBodyError, headers: tuple[tuple[str, str], ...]) -> CallFailedError:
    failure = Failure.of(Kind.BAD_BODY, str(error))
    return CallFailedError(replace(failure, forwarded=_cookies(headers)) if headers else failure)


def _charset_of(call: Call | BodylessResponse) -> str | None:
    """The charset of the response's Content-Type. Of several fields the last one with a charset counts."""
    named = [charset_of(value.decode("latin-1")) for _, lower, value in call.fields if lower == b"content-type"]
    return next(filter(None, reversed(named)), None)


def _kept(wanted: frozenset[bytes], call: Call | BodylessResponse) -> tuple[tuple[str, str], ...]:
    """The response fields named in ``wanted``, without invalid values (an httpx transport may give such values)."""
    kept = [(lower.decode("latin-1"), value.decode("latin-1")) for _, lower, value in call.fields if lower in wanted]
    return tuple((name, value) for name, value in kept if raw_value(value) is not None) if kept else ()


def _cookies(fields: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The Set-Cookie fields of a response. The answer may forward them even if the call fails."""
    return tuple(field for field in fields if field[0] == "set-cookie")


def _content_type(call: Call | BodylessResponse) -> str:
    """The response's Content-Type. Of several fields the last one counts, as in ``_charset_of``."""
    values = [value.decode("latin-1") for _, lower, value in call.fields if lower == b"content-type" and value]
    return values[-1] if values else "application/octet-stream"


def _status_failure(rules: CallRules, call: Call | BodylessResponse) -> Failure:
    status = call.status
    assert status is not None
    passed, note = status in rules.pass_status, call.note
    fields = fields_of_status(status, call.fields) if passed else ()
    if passed and (missing := missing_field(status, fields)):
        passed, fields, note = False, (), f"it has no {missing}"
    body = None
    if passed and rules.pass_body:
        body = PassedBody(call.content, _content_type(call))
    received = _kept(rules.answer_headers, call) if rules.answer_headers else ()
    return Failure(
        Kind.STATUS,
        status if passed else 502,
        f"the upstream answered {status}" + (f"; {note}" if note else ""),
        received_status=status,
        body=body,
        fields=fields,
        forwarded=received if passed else _cookies(received),
    )
