"""What the layers of one call share beside the request: which replicas it tried, and the breaker's ticket.

Opened by the outermost layer that needs it, found by the layers below. It lives in the ``extensions`` of that layer's
copy of the request, so that a request sent again begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import httpx

from ..kinds import Kind
from ..messages import extended

STATE = "umbel.state"
"""The key of the ``CallState`` in ``httpx.Request.extensions``."""

Cause = Literal["first", "retry", "hedge"]


class Ticket(Protocol):
    """A breaker's admission of one call."""

    @property
    def blocked(self) -> bool:
        """Whether the breaker has opened since: attempts that are not under way are not made."""

    def attempted(self, now: float, kind: Kind | None, status: int | None) -> None:
        """An attempt of the call has ended: with a failure's kind, or with a response of this status."""


class UnderWay(NamedTuple):
    """An attempt that has not ended."""

    replica: str
    started_at: float
    cause: Cause


@dataclass(slots=True)
class CallState:
    """The shared state of one call."""

    tried: list[str] = field(default_factory=list)
    """The names of the replicas that its attempts took, in order."""
    ticket: Ticket | None = None
    cause: Cause = "first"
    """Why the attempt that is about to be made is made."""
    hedged: bool = False
    queued: bool = False
    """Whether it waits for a place: a cancel then says nothing of the upstream."""
    failovers: int = 0
    """Attempts that a dying replica took with it and that may be made once more elsewhere without budget."""

    under_way: list[UnderWay] | None = None
    """The attempts that have not ended, where somebody wants to know them before they do."""

    def begun(self, replica: str, now: float) -> UnderWay | None:
        """An attempt takes ``replica``. What is returned is to be handed to ``ended``."""
        self.tried.append(replica)
        if self.under_way is None:
            return None
        attempt = UnderWay(replica, now, self.cause)
        self.under_way.append(attempt)
        return attempt

    def ended(self, attempt: UnderWay) -> None:
        """It is over, whatever came of it."""
        if self.under_way is not None:
            self.under_way.remove(attempt)

    def fail_over(self) -> bool:
        """Whether the attempt that is about to be made replaces such a one."""
        if not self.failovers:
            return False
        self.failovers -= 1
        return True


def call_state(request: httpx.Request) -> CallState | None:
    """The state of the call that ``request`` belongs to, if a layer above opened one."""
    state: CallState | None = request.extensions.get(STATE)
    return state


def opened(request: httpx.Request) -> tuple[httpx.Request, CallState]:
    """The state of the call: the one that a layer above opened, or a new one in a copy of the request.

    A copy, because its owner may send the same request again, at the same time too, and that is another call.
    """
    state = call_state(request)
    if state is not None:
        return request, state
    state = CallState()
    return extended(request, {**request.extensions, STATE: state}), state
