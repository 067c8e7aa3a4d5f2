"""The tasks that serve plain connections, as many as there are requests that wait, and one.

One of them leads: it waits for all connections at once and serves what has come, one after the other. As soon as
something that it serves has to wait, another one takes the lead, and it goes on with that alone, to its end (the
pattern is leader/followers, Schmidt et al., POSA 2). So an idle connection has no task, and a request that is answered
without waiting costs no switch of tasks. It knows no protocol.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import outcome
import trio

from .stepping import rest_of

LEFT, RESET = getattr(select, "EPOLLRDHUP", 0), getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
"""Flags: the peer has sent its last byte (the kernel sees that behind bytes that wait to be read); it has gone."""
READABLE = getattr(select, "EPOLLIN", 0)

_EVENTS_MAX = 64
"""Connections served in one go, so that a crowd of them does not hold up the requests that wait for something."""
_TURNS_S_MAX = 0.005
"""Seconds of such turns after which the other tasks of the program have theirs."""
SPARES_MAX = 64
"""Tasks that rest, to take the lead later, while requests wait: to wake one costs less than a new one."""


class Turn(Protocol):
    """Somebody who has something to do."""

    def turn(self, scope: trio.CancelScope) -> Coroutine[Any, Any, bool]:
        """Do it; ``scope`` is around it and may be cancelled by it, and the result says whether it was."""
        ...

    def abandon(self) -> None:
        """There will be no turn any more."""


@dataclass(frozen=True, slots=True)
class CrewStatistics:
    """A snapshot of a crew's counters."""

    hands: int
    """Tasks at work: one that leads, and one for each turn that waits."""
    spares: int
    """Tasks that rest until they are to lead."""
    members: int
    """Those who may get turns."""
    turns: int
    """Turns that are asked for and not begun."""


class Crew:
    """Watches descriptors, and gives those a turn who asked for one."""

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque()
        """Who asked for a turn."""
        self.members: set[Turn] = set()
        """Who is to be told when there are no turns any more."""
        self._epoll: Any = None  # select.epoll is not a type everywhere
        self._calls: dict[int, Callable[[int], None]] = {}
        self._nursery: trio.Nursery | None = None
        self._hands = 0
        self._spares: list[trio.lowlevel.Task] = []
        self._unbroken = 0
        """Events since the other tasks of the program had their turn."""
        self._until = 0.0
        """When they are to have the next one (``perf_counter``)."""

    @property
    def works(self) -> bool:
        """Whether it can watch: it runs, and on a system that has epoll."""
        return self._epoll is not None

    def statistics(self) -> CrewStatistics:
        """A snapshot of the counters."""
        return CrewStatistics(self._hands, len(self._spares), len(self.members), len(self.turns))

    def watch(self, fd: int, call: Callable[[int], None], flags: int = LEFT) -> None:
        """Call ``call`` with the flags at each change of them (edge-triggered) until ``forget``."""
        if self._epoll is not None and fd not in self._calls:
            self._calls[fd] = call
            self._epoll.register(fd, flags | select.EPOLLET)

    def forget(self, fd: int) -> None:
        """To be called before ``fd`` is closed."""
        if self._calls.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def start(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do something in a task of its own."""
        assert self._nursery is not None
        self._nursery.start_soon(work)

    def cut(self, reason: str) -> None:
        """Cancel what waits; who has no turn is abandoned."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or cut."""
        if not hasattr(select, "epoll"):
            task_status.started()
            return
        with select.epoll() as self._epoll:
            try:
                async with trio.open_nursery() as self._nursery:
                    self.promote()
                    task_status.started()
            finally:
                for member in tuple(self.members):
                    member.abandon()
                trio.lowlevel.notify_closing(self._epoll.fileno())
                self._epoll = None
                self._calls.clear()

    def promote(self) -> None:
        """Let another task take the lead."""
        if self._spares:
            trio.lowlevel.reschedule(self._spares.pop(), outcome.Value(True))
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        """Lead, until something has to wait or this task is spoilt; what waits is served to its end."""
        self._hands += 1
        leads = True
        try:
            with trio.CancelScope() as scope:
                while True:
                    if not leads:
                        if not await self._waits_for_the_lead():
                            break
                        leads = True
                    if not self.turns:
                        await self._poll()
                        continue
                    if perf_counter() > self._until:
                        await trio.lowlevel.checkpoint()
                        self._until = perf_counter() + _TURNS_S_MAX
                        continue
                    turn = self.turns.popleft()
                    steps = turn.turn(scope)
                    try:
                        trap = steps.send(None)
                    except StopIteration as end:
                        spoilt = end.value
                    else:
                        leads = False
                        self.promote()
                        spoilt = await rest_of(steps, trap)
                    if spoilt:
                        break
            if leads and not scope.cancelled_caught:
                # A turn has cancelled the scope without waiting in it.
                self.promote()
        finally:
            self._hands -= 1
            if self._hands <= 1:  # Nothing waits any more: nobody need rest.
                spares, self._spares = self._spares, []
                for spare in spares:
                    trio.lowlevel.reschedule(spare, outcome.Value(False))

    async def _waits_for_the_lead(self) -> bool:
        """Rest until this task is to lead; False if it is not needed any more."""
        if self._hands <= 2 or len(self._spares) >= SPARES_MAX:  # It is the last, beside the leader; or enough rest.
            return False
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._spares.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._hands -= 1
        self._spares.append(task)
        try:
            leads: bool = await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._hands += 1
        return leads

    async def _poll(self) -> None:
        """Wait until something has come, and call those whom it concerns."""
        # What came in the meantime needs no wait, and trio's way of waiting costs as much as a request.
        events = self._epoll.poll(0, _EVENTS_MAX) if self._unbroken < _EVENTS_MAX else ()
        if not events:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._unbroken = 0
            self._until = perf_counter() + _TURNS_S_MAX
            events = self._epoll.poll(0, _EVENTS_MAX)
        self._unbroken += len(events)
        calls = self._calls
        for fd, flags in events:
            calls[fd](flags)
