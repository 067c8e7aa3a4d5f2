"""The kind and the failure verdict of the end of an attempt."""

from __future__ import annotations

import math

import httpx
import pytest

from umbel.core.call import CallContext, SingleCallOwner
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.core.model import RequestFacts, Trace
from umbel.policy.failure_verdict import failed
from umbel.upstream.calls.failure_kind import CLIENT_GONE, LOST, kind_of_cut, kind_of_error
from umbel.upstream.errors import BadRequest, BudgetSpent, ConnectFailed, NameFailed, Overflow, TooBig


@pytest.mark.parametrize(
    ("error", "kind", "verdict"),
    [
        (ConnectFailed("x"), Kind.CONNECT, True),
        (NameFailed("x"), Kind.DNS, True),
        (TooBig("x"), Kind.TOO_BIG, False),
        (Overflow("x"), Kind.OVERFLOW, None),
        (BadRequest("x"), Kind.BAD_REQUEST, None),
        (BudgetSpent("x"), Kind.TIMEOUT, True),  # Not used: the attempt was never made.
        (RuntimeError("x"), Kind.INTERNAL, None),
    ],
    ids=repr,
)
def test_an_error_has_a_kind_and_a_failure_verdict(error: Exception, kind: Kind, verdict: bool | None) -> None:
    assert kind_of_error(error) is kind
    assert failed(kind_of_error(error), None) is verdict
    if isinstance(error, UpstreamError):
        assert isinstance(error, httpx.TransportError)


def context(deadline: float, route_deadline: float | None = None) -> CallContext:
    """Of a call within so many seconds, of a request that began at 0; None: of no request."""
    request = None
    if route_deadline is not None:
        request = RequestFacts("id", Trace("ab" * 16), "GET", "/", "/", 0.0, route_deadline)
    return CallContext(SingleCallOwner(), "call", "upstream", request, deadline)


@pytest.mark.parametrize("reason", ["", "a sibling failed", "deadline"])
@pytest.mark.parametrize(
    ("of", "started_at", "kind"),
    [
        (context(math.inf), 0.0, Kind.CANCELLED),
        (context(6.0), 0.0, Kind.CANCELLED),
        (context(5.0), 0.0, Kind.TIMEOUT),
        (context(6.0, 6.0), 0.0, Kind.CANCELLED),
        (context(5.0, 5.0), 0.0, Kind.TIMEOUT),
        (context(5.0, 5.0), 2.5, Kind.TIMEOUT),
        # An attempt that began late counts only if the limit is the call's own.
        (context(5.0, 5.0), 2.6, Kind.CANCELLED),
        (context(5.0, 100.0), 2.6, Kind.TIMEOUT),
    ],
)
def test_a_cut_is_a_timeout_only_by_the_calls_own_deadline(
    of: CallContext, started_at: float, kind: Kind, reason: str
) -> None:
    """The call is made five seconds after the beginning of its request."""
    assert kind_of_cut(reason, of, started_at, 5.0) is kind
    assert kind_of_cut(CLIENT_GONE, of, started_at, 5.0) is Kind.CLIENT_GONE
    assert kind_of_cut(LOST, of, started_at, 5.0) is Kind.CANCELLED
