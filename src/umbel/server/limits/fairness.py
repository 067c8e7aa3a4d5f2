"""Bounds on an application that calls ``receive`` and ``send`` without ever waiting.

trio switches tasks and delivers cancels at checkpoints only. A call that returns or raises at once has none, so an
application that loops over such calls would hold the worker. Two rules apply to every callable that the server hands to
an application, whatever its protocol and state:

* Each sixteenth call has a checkpoint, whether it waited otherwise or not. The count needs no clock; the usual request
  makes three calls, and pays one addition for each.
* Each call after the end (the response is complete, the client has gone, the WebSocket is closed) has a checkpoint, and
  after ``CALLS_AFTER_END_MAX`` of them the application is cancelled: it does not act on what the calls say.

``tests/e2e/server/hostile/test_spinning.py`` finds the places where applications are called, and tries each callable.
"""

from __future__ import annotations

from abc import abstractmethod

import trio

from ...core.failure_kinds import Kind

NO_SLOTS: tuple[str, ...] = ()
"""Of a base whose attributes are defaults: a class with it has slots of the same names, or a dictionary."""
CALLS_PER_TURN = 16
"""Calls of one application between two checkpoints."""
CALLS_AFTER_END_MAX = 1000
"""Calls after the end until the application is cancelled. Sound ones make one or two."""
UNSENT_MAX = 16 * 2**20
"""Bytes that an application may send of the content of a response that has none (HEAD, 204, 304)."""
_PART_COST = 1024
"""What a part of it counts beside its bytes."""

_ENDLESS = "the application goes on calling after its end"


class CountedCalls:
    """A base of whatever an application may call in a loop. Each such method awaits ``count_call`` first."""

    __slots__ = NO_SLOTS
    _calls = 0

    async def count_call(self) -> None:
        """Count a call; a checkpoint for each sixteenth."""
        self._calls += 1
        if self._calls % CALLS_PER_TURN == 0:
            await trio.lowlevel.checkpoint()


class BoundedCalls(CountedCalls):
    """The counts of one application on one request; a base of whatever has its ``receive`` and ``send``."""

    __slots__ = NO_SLOTS
    gone = False
    """Whether the client has left, or is treated so."""
    _late_calls = 0

    @abstractmethod
    def stop_endless(self, reason: str) -> None:
        """Cancel the application, which calls on after its end."""

    async def count_late_call(self) -> None:
        """Count a call after the end, with a checkpoint."""
        self._late_calls += 1
        if self._late_calls == CALLS_AFTER_END_MAX:
            self.stop_endless(str(Kind.CLIENT_GONE) if self.gone else _ENDLESS)
        await trio.lowlevel.checkpoint()


class UnsentContent:
    """The content of a response that has none on the wire: a base of whatever stands for one request."""

    __slots__ = NO_SLOTS
    _unsent = 0
    _unsent_until = 0.0

    def leave_unsent(self, size: int, seconds: float) -> bool:
        """Take a part of the content of a response that has none on the wire (RFC 9110 section 6.4.1).

        Its client takes nothing of it, so nothing slows the application down. False once the parts before this one are
        more than ``UNSENT_MAX``, or ``seconds`` (the write timeout) have passed since the first: then the application
        is to be stopped as for a client that does not read.
        """
        now = trio.current_time()
        if not self._unsent:
            self._unsent_until = now + seconds
        within = self._unsent <= UNSENT_MAX and now < self._unsent_until
        self._unsent += size + _PART_COST
        return within
