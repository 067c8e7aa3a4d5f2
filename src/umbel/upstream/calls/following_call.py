"""A call that follows redirects of its upstream (``redirects = "follow"``).

Each redirect begins a new round of the same call (``repeatable_call.py``), with the request that
``core/http/redirects.py`` makes. So every hop is an attempt that the breaker counts, the load balancer places, and
retries and hedges repeat; it spends of the upstream's limits as a retry does. The call keeps its place of the bulkhead
and its time limit over all hops. A redirect that is not followed is the response of the call.

Such a call is never coalesced: a redirect may belong to one client although the response after it does not say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.http.redirects import FOLLOWED, NotFollowedError, followed
from ..pool.request_head import IDEMPOTENT, is_idempotent
from .repeatable_call import RepeatableCall

if TYPE_CHECKING:
    from ...core.call import CallContext, PreparedRequest
    from .attempt import Attempt
    from .client_interface import ClientInterface


class FollowingCall(RepeatableCall):
    """A ``core.call.Call`` that follows a bounded number of redirects. See the module."""

    __slots__ = ("_hops", "note")

    def __init__(self, client: ClientInterface, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(client, prepared, context)
        self._hops = 0
        """Redirects followed."""
        self.note = ""

    def _conclude(self, attempt: Attempt, now: float) -> None:
        """Begin the round of the next hop, or end the call with ``attempt``."""
        try:
            following = self._following(attempt, now)
        except NotFollowedError as error:
            following, self.note = None, f"the redirect was not followed: {error}"
        if following is None:
            super()._conclude(attempt, now)
            return
        self._hops += 1
        self.prepared = following
        self.idempotent = following.method in IDEMPOTENT or is_idempotent(following)
        self.tried = ()
        self._begin_round(now, "redirect")
        self.send()

    def _following(self, attempt: Attempt, now: float) -> PreparedRequest | None:
        """The request that follows the response of ``attempt``; None: it is no redirect.

        Raises:
            NotFollowedError: the redirect must not be followed.
        """
        slot, answer, status = attempt.slot, attempt.answer, attempt.status
        if slot is None or answer is None or status not in FOLLOWED:
            return None
        if self._blocked:
            raise NotFollowedError("the breaker has opened")
        replica = slot.replica
        target = replica.origin.scheme, replica.host, replica.base
        following = followed(self.prepared, status, answer[1], *target, self._hops)
        if self.client.limits is not None and not self.client.limits.take(self.context.request, now):
            raise NotFollowedError("a limit of the upstream does not admit another request now")
        return following
