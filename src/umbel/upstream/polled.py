"""Many sockets watched by one task: an epoll of the pool's own, itself waited on by trio.

Made and run by the pool, used by the wires that ``dial.py`` makes where the system has epoll (Linux). To wait for each
socket by itself costs a registration, a waiter and a system call per response; here a socket is registered once, and
whatever has come on all of them is received in one turn. Half of the cost of a small exchange.
"""

from __future__ import annotations

import select
from contextlib import suppress
from time import perf_counter
from typing import Protocol

import outcome
import trio

from .wire import RECEIVE_MAX, PlainWire

POLLER_WORKS = hasattr(select, "epoll")
"""Elsewhere each wire waits for itself."""
EVENTS_MAX = 256
"""Sockets served in one turn, so that other tasks come to theirs."""
_TURN_S_MAX = 0.005
"""Seconds of such a turn: one read may hold 64 KiB of chunks of a byte each."""


class Poller:
    """The sockets of one pool. Works while ``run`` runs; ``close`` it when that has ended."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wires: dict[int, PolledWire] = {}

    async def run(self) -> None:
        """Receive whatever comes, for whoever waits for it, until cancelled."""
        fileno, poll, wires = self._epoll.fileno(), self._epoll.poll, self._wires
        while True:
            await trio.lowlevel.wait_readable(fileno)
            until = perf_counter() + _TURN_S_MAX
            for fd, _ in poll(0, EVENTS_MAX):
                wires[fd].receive_now()
                if perf_counter() > until:
                    break  # What is left is reported again, as it has not been read.

    def watch(self, fd: int, wire: PolledWire) -> None:
        """Call ``wire.receive_now`` whenever ``fd`` can be read, until ``forget``."""
        self._wires[fd] = wire
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no more. To be called before it is closed."""
        del self._wires[fd]
        # A fork that closed its copies of our sockets has taken them out of the epoll that it shares with us.
        with suppress(OSError):
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Close the epoll. Its wires can then only be closed."""
        trio.lowlevel.notify_closing(self._epoll.fileno())
        self._epoll.close()


class Catcher(Protocol):
    """Who is told of what has come, instead of a task that waits for it."""

    def told(self, data: bytes | trio.BrokenResourceError) -> None:
        """This came; empty at the end of the stream. It must not raise."""


class PolledWire(PlainWire):
    """A PlainWire that is read by a poller's task, which hands what came to the one that waits for it."""

    __slots__ = ("_catcher", "_poller", "_reader", "_watched")

    def __init__(self, stream: trio.SocketStream, poller: Poller) -> None:
        super().__init__(stream)
        self._poller = poller
        self._reader: trio.lowlevel.Task | None = None
        self._catcher: Catcher | None = None
        # From the first receiving on, so that a wire which comes too late for its pool can still be closed.
        self._watched = False

    @property
    def is_silent(self) -> bool:
        """``is_quiet``, for whoever cannot await."""
        return not (self._closed or self._poll.poll(0))

    def send_off(self, data: bytes, catcher: Catcher) -> bool:
        """Send all of it at once, and tell ``catcher`` of what comes then.

        False if that cannot be done; some of it may have been sent.
        """
        try:
            if self._socket.send(data) != len(data):
                return False
        except OSError:  # Closed ones too.
            return False
        self._catcher = catcher
        if not self._watched:
            self._poller.watch(self._fd, self)
            self._watched = True
        return True

    def catch(self, catcher: Catcher) -> None:
        """Tell ``catcher`` of what comes next, once; that may be that somebody closed the wire."""
        self._catcher = catcher
        if not self._watched:
            self._poller.watch(self._fd, self)
            self._watched = True

    def drop(self) -> None:
        """Tell nobody of anything any more."""
        self._catcher = None

    async def receive_some(self) -> bytes:
        """Receive what is there; empty at the end of the stream."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving already")
        if not self._watched:
            self._poller.watch(self._fd, self)
            self._watched = True
        self._reader = trio.lowlevel.current_task()
        data: bytes = await trio.lowlevel.wait_task_rescheduled(self._abort)
        return data

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        # Nothing has been received for it yet: a task that was given something is not cancelled here any more.
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def receive_now(self) -> None:
        """For the poller: the socket can be read."""
        catcher = self._catcher
        if catcher is not None:
            try:
                data = self._socket.recv(RECEIVE_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                self._catcher = None
                catcher.told(_broken(error))
                return
            self._catcher = None
            catcher.told(data)
            return
        reader = self._reader
        if reader is None:
            # Bytes, or the end, that nobody waits for yet, or ever will. They stay in the socket, where ``is_quiet``
            # sees them and whose window they fill; reported without end they would keep the loop busy.
            self._watched = False
            self._poller.forget(self._fd)
            return
        result: outcome.Outcome[bytes]
        try:
            result = outcome.Value(self._socket.recv(RECEIVE_MAX))
        except BlockingIOError:
            return
        except OSError as error:
            result = outcome.Error(_broken(error))
        self._reader = None
        trio.lowlevel.reschedule(reader, result)

    def close_now(self) -> None:
        """Close the socket."""
        if not self._closed:
            if self._watched:
                self._watched = False
                self._poller.forget(self._fd)
            if (reader := self._reader) is not None:
                self._reader = None
                trio.lowlevel.reschedule(reader, outcome.Error(trio.ClosedResourceError("closed while receiving")))
            if (catcher := self._catcher) is not None:
                self._catcher = None
                catcher.told(trio.BrokenResourceError("closed while receiving"))
        super().close_now()


def _broken(error: OSError) -> trio.BrokenResourceError:
    broken = trio.BrokenResourceError(f"the socket is broken: {error}")
    broken.__cause__ = error
    return broken
