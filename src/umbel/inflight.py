"""Requests that one task sends off and that land without a task of their own: what both sides of that agree on.

The composition sends calls off where nothing about them can wait but the answer; ``upstream/express.py`` flies them.
Every other transport is only asked the ordinary way (``handle_async_request``), which means the same for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import httpx

    from .messages import Field
    from .model import CallFacts


class Prepared(NamedTuple):
    """A call's request, ready to go: everything but the replica."""

    method: str
    target: bytes
    """Origin form, relative to the upstream's base URL."""
    headers: Sequence[Field]
    """The plan's fields: what the configuration, the client's request and other calls gave. None bears a name that one
    of ``gateway`` bears. A tuple where they are the same for every request, and worth remembering."""
    content: bytes | None = None
    gateway: tuple[tuple[Field, ...], ...] = ()
    """The fields that the gateway writes of itself and of its client, in blocks that other requests have too."""

    @property
    def fields(self) -> Sequence[Field]:
        """All of the request's fields."""
        return [*self.headers, *chain(*self.gateway)]

    @property
    def gateway_names(self) -> frozenset[bytes]:
        """The names of the gateway's fields, in lower case."""
        return frozenset(field[1] for field in chain(*self.gateway))


class InFlight(Protocol):
    """A request that is sent off. Used by one task, which has it ``depart`` and ends it exactly once.

    Either ``land`` gives its response or raises, or ``carry`` does, or it is ``cut``. While it is ``in_air`` the one
    who sent it off is told of what comes, and then asks it to land; else a task must carry it on, because something
    must be waited for: a connection, or the time until another attempt.
    """

    @property
    def in_air(self) -> bool:
        """Whether ``arrived`` will be called."""

    def depart(self) -> None:
        """Send it now, without waiting. If it is not in the air then, it must be carried."""

    def land(self, now: float) -> httpx.Response | None:
        """The complete response, after something has arrived; None if it was not all, or must now be carried.

        ``now`` is ``trio.current_time()``.

        Raises:
            UpstreamError: what ``handle_async_request`` of the same transport would raise.
        """

    async def carry(self) -> httpx.Response:
        """The complete response of what is not in the air. Cancelled, it leaves nothing.

        Raises:
            UpstreamError: as ``land``.
        """
        ...

    def cut(self, cancelled: BaseException) -> None:
        """End it, in the air or before it is carried: ``cancelled`` is what ended whoever waits for it."""


class SendsOff(Protocol):
    """A transport that can send a request off."""

    def send_off(
        self, prepared: Prepared, facts: CallFacts, arrived: Callable[[InFlight], None], now: float
    ) -> InFlight | None:
        """Make it ready to ``depart``, without waiting; None, and nothing has happened, if it must go the ordinary way.

        ``now`` is ``trio.current_time()``. ``arrived`` is called with it, from another task, when something has come.
        """
