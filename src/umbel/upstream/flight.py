"""One upstream call that several callers wait for: who waits, until when, and what each of them gets.

Made and flown by ``coalesce.py``. It starts nothing and sends nothing.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import NamedTuple

import httpx
import trio

from ..messages import UpstreamResponse
from ..model import Attempt, CallFacts, RequestFacts, Trace
from .ending import kind_of_end
from .state import CallState


class _Passenger(NamedTuple):
    """Ordered so that a heap's first is the one with the latest deadline; of those, the one that came first."""

    minus_deadline: float
    number: int
    facts: CallFacts | None


class Flight:
    """A call under way.

    ``facts`` are its own: its ids, its attempts, and always the latest deadline of those who still wait (None where the
    first of them belongs to no call). ``scope`` is the one that it runs under.
    """

    __slots__ = (
        "_boarded",
        "_failure",
        "_left",
        "_passengers",
        "_response",
        "_several",
        "_shareable",
        "_taken",
        "boards_until",
        "facts",
        "over",
        "scope",
        "state",
    )

    scope: trio.CancelScope

    def __init__(self, first: CallFacts | None, request_id: str, trace_id: str) -> None:
        self.facts = None if first is None else _own_facts(first, request_id, trace_id)
        self.boards_until = trio.current_effective_deadline() if first is None else first.deadline
        """Who comes later than this gets a call of its own: an upstream that hangs must not be waited for without end,
        by one caller after the other."""
        self.over = trio.Event()
        self.state: CallState | None = None
        """What its layers share, once it flies."""
        self._boarded = 0
        # By deadline, so that a crowd that leaves together costs no scan each. Who left is thrown out at the top.
        self._passengers: list[_Passenger] = []
        self._left: set[int] = set()
        self._response: httpx.Response | None = None
        self._failure: Exception | None = None
        self._shareable = False
        self._several = False
        self._taken = False

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._passengers) - len(self._left)

    def board(self, facts: CallFacts | None) -> int:
        """One more waits, until its own deadline. Returns its number, for ``leave``."""
        number = self._boarded
        self._boarded = number + 1
        heappush(self._passengers, _Passenger(-math.inf if facts is None else -facts.deadline, number, facts))
        if number and self._passengers[0].number == number:
            self._follow()
        return number

    def leave(self, number: int) -> bool:
        """One no longer waits; the deadline follows those who do. Returns whether nobody does."""
        self._left.add(number)
        followed = self._passengers[0].number
        while self._passengers and self._passengers[0].number in self._left:
            self._left.remove(heappop(self._passengers).number)
        if self._passengers and self._passengers[0].number != followed:
            self._follow()
        return not self._passengers

    def attempts(self, number: int, facts: CallFacts, left: BaseException | None) -> list[Attempt]:
        """What was attempted for one of those who waited, until it was over or that call ``left``, by this exception.

        Who found the flight under way shared what was another's; its attempts say so.
        """
        if self.facts is None:
            return []
        attempts = list(self.facts.attempts)
        if left is not None and self.state is not None:
            now = trio.current_time()
            for replica, started_at, cause in self.state.under_way or ():
                kind = kind_of_end(left, facts, started_at)
                attempts.append(Attempt(len(attempts) + 1, replica, started_at, now, None, kind, False, cause))
        return [each._replace(coalesced=True) for each in attempts] if number else attempts

    def land(
        self, response: httpx.Response | None = None, *, shareable: bool = False, failure: Exception | None = None
    ) -> None:
        """It is over: wake everybody. With neither a response nor a failure, each must ask for itself."""
        self._response = response
        self._shareable = shareable
        self._failure = failure
        self._several = self.waiting > 1
        self.over.set()

    def take(self) -> httpx.Response | None:
        """What one of those who waited gets; None: nothing here is for it, it must ask for itself.

        Raises:
            Exception: the flight's failure; where several get it, a copy for each, with the original as its cause.
        """
        if self._failure is not None:
            if self._several:
                raise copy_of_failure(self._failure) from self._failure
            raise self._failure
        if self._several and self._shareable and self._response is not None:
            return copy_of_response(self._response)
        if self._taken:
            return None
        self._taken = True
        return self._response

    def _follow(self) -> None:
        """Take over the time of whoever waits the longest."""
        longest = self._passengers[0].facts
        if self.facts is not None and longest is not None:
            own = self.facts.request
            self.facts.deadline = longest.deadline
            self.facts.request = _own_request(longest.request, own.request_id, own.trace)


def _own_facts(first: CallFacts, request_id: str, trace_id: str) -> CallFacts:
    trace = Trace(trace_id, flags=first.request.trace.flags)
    request = _own_request(first.request, request_id, trace)
    return CallFacts(first.call, first.upstream, request, first.deadline, first.recorder, first.max_body)


def _own_request(whose: RequestFacts, request_id: str, trace: Trace) -> RequestFacts:
    """``whose`` time under the flight's own ids: what an attempt's end means hangs on when its request began."""
    return RequestFacts(request_id, trace, whose.method, whose.path, whose.route, whose.started_at, whose.deadline)


def copy_of_response(response: httpx.Response) -> httpx.Response:
    """A response of the same bytes, for one more owner: an httpx response changes while it is used."""
    copy = UpstreamResponse(
        response.status_code,
        headers=response.headers.raw,
        stream=response.stream,
        extensions=dict(response.extensions),
    )
    if response.is_closed:
        copy.read()
    return copy


def copy_of_failure(failure: Exception) -> Exception:
    """An exception of the same type that says the same: one that is raised in many tasks collects all their frames."""
    kind = type(failure)
    # Not by calling the class: its __init__ may want what its args do not hold.
    copy = kind.__new__(kind, *failure.args)
    copy.args = failure.args
    copy.__dict__.update(failure.__dict__)
    return copy
