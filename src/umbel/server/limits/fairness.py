"""Bounds on an application that calls ``receive`` and ``send`` without waiting.

trio switches tasks and delivers cancels only at checkpoints. A call that returns or raises at once has none, so an
application that loops over such calls would block the event loop. Two rules apply to every callable that the server
gives to an application:

* Each sixteenth call has a checkpoint. A usual request makes three calls, so the rule costs it three additions.
* Each call after the end (the response is complete, the client has gone, the WebSocket is closed) has a checkpoint.
  After ``CALLS_AFTER_END_MAX`` of them the application is cancelled, because it ignores what the calls return or raise.
"""

from __future__ import annotations

from abc import abstractmethod

import trio

from ...core.failure_kinds import Kind

NO_SLOTS: tuple[str, ...] = ()
"""``__slots__`` of a base class whose attributes are defaults in the class. A subclass has slots of the same names, or
a ``__dict__``."""
CALLS_PER_TURN = 16
"""Calls of one application between two checkpoints."""
CALLS_AFTER_END_MAX = 1000
"""Calls after the end before the application is cancelled. Correct applications make one or two."""
UNSENT_MAX = 16 * 2**20
"""Bytes of content that an application may give for a response without content (HEAD, 204, 304)."""
_PART_COST = 1024
"""Bytes that each part of such content counts beside its own."""

_ENDLESS = "the application keeps calling receive or send after the end"


class CountedCalls:
    """Base of objects whose methods an application may call in a loop. Each such method awaits ``count_call`` first."""

    __slots__ = NO_SLOTS
    _calls = 0

    async def count_call(self) -> None:
        """Count a call. Each sixteenth runs a checkpoint."""
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()


class BoundedCalls(CountedCalls):
    """Base of objects with the ``receive`` and ``send`` of one request."""

    __slots__ = NO_SLOTS
    gone = False
    """Whether the client has left or is treated as if it had."""
    _late_calls = 0

    @abstractmethod
    def stop_endless(self, reason: str) -> None:
        """Cancel the application with ``reason``, because it keeps calling after the end. Must not wait."""

    async def count_late_call(self) -> None:
        """Count a call after the end, and run a checkpoint. At ``CALLS_AFTER_END_MAX``, call ``stop_endless``."""
        self._late_calls += 1
        if self._late_calls == CALLS_AFTER_END_MAX:
            self.stop_endless(str(Kind.CLIENT_GONE) if self.gone else _ENDLESS)
        await trio.lowlevel.checkpoint()


class UnsentContent:
    """Base of requests that bounds the content which an application gives for a response without content."""

    __slots__ = NO_SLOTS
    _unsent = 0
    _unsent_until = 0.0

    def leave_unsent(self, size: int, seconds: float) -> bool:
        """Count a part of ``size`` bytes that is not sent (RFC 9110 section 6.4.1). Return whether more may follow.

        No client slows the application down here, so the content could be endless. The bounds are ``UNSENT_MAX`` bytes,
        and ``seconds`` (the write timeout) from the first part on. Above them the application is stopped, as for a
        client that does not read.
        """
        now = trio.current_time()
        if not self._unsent:
            self._unsent_until = now + seconds
        within = self._unsent <= UNSENT_MAX and now < self._unsent_until
        self._unsent += size + _PART_COST
        return within
