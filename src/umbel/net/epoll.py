"""Socket reader: one task that reports the readiness of many sockets to their handlers, with one epoll.

Theory
------
*Problem.* ``trio.lowlevel.wait_readable`` costs one registration, one system call and one task switch per wait. A
gateway waits for hundreds of sockets at once, each for a short response. The reader registers every socket once, for as
long as the socket is open, with an epoll of its own. Only the reader's task (``run``) waits in trio, for the descriptor
of that epoll. Each wake-up of this task serves up to ``EVENTS_MAX`` sockets that have become ready.

*Handlers.* Each registered socket has one handler. ``run`` calls the handler with the socket's events, in the reader's
task. A handler has no context variables of a request. A handler typically reschedules the task that waits for the
socket; ``PlainStream`` does so. A handler must not raise: its exception ends ``run``. A handler must do little, because
all other sockets wait meanwhile. ``run`` is protected from KeyboardInterrupt, so Ctrl-C never stops a handler half-way.

*Edge-triggered events.* A socket is registered for reading, writing and the end of the peer's sending (EPOLLRDHUP) with
EPOLLET: the kernel reports each change once. A handler that leaves bytes unread is not called again for them. The
owner of the socket must either read until the socket would block, or remember that bytes are left. ``call_again``
requests one more report of whatever the socket is ready for.

*Batches.* One ``poll`` returns a batch of at most ``EVENTS_MAX`` events. If more sockets are ready, the epoll stays
readable and the next batch follows in the next turn of the scheduler. The handlers of a batch run without a checkpoint
in between, so the tasks that they wake run together, after the batch. Only a batch that takes longer than
``TURN_SECONDS`` passes through a checkpoint, and then continues; the clock is read after every ``HANDLERS_PER_LOOK``
handlers. While ``run`` runs, no polled event of an open socket is dropped: the kernel would not report the event again.

*Closing a socket.* The kernel may give the number of a closed descriptor to the next socket at once. If a handler
really closed socket 7 in the middle of a batch, and a new socket got the number 7, a later event of the batch for the
old socket would reach the handler of the new one. Therefore ``close`` does two things at different times:

- at once: it removes the handler and the registration. A later event of the batch finds no handler and is ignored;
- at the end of the batch, or at once outside of a batch: it closes the descriptor.

``after_batch`` defers any function in the same way. What it begins then begins at one time and once per batch: requests
that are sent so, one right after the other, wake the peer once.

*Turns.* The tasks that a batch has woken run in the same turn of trio's loop. ``at_turn_end`` defers a function until
they have run, and trio is about to wait for events (``_TurnEnd``). A peer that sleeps is woken by each send, and a
wake-up costs more than the rest of the send; sends one right after the other wake it once. If functions have waited for
``LATE_SECONDS`` when one more is given, all are called at once. A task that holds the loop holds them back, too.

The checkpoint in the middle of a batch changes nothing: a socket that another task closes there counts as closed within
the batch. The registration is always removed before the descriptor is closed. The kernel removes a registration by
itself only when the last copy of the descriptor is closed, and a forked process may hold a copy.

*Cancellation.* ``run`` has two checkpoints. A cancel at either ends ``run``: the remaining events of the batch are
lost, deferred sockets are closed, and the epoll is closed. The other sockets stay open, and ``close`` still closes
them. No handler is called any more, so a task that waits for a handler would wait for ever: ``run`` must end after
those tasks.

*Without epoll* (macOS, BSD) ``WaitReader`` offers the same interface with two tasks per socket that wait in trio.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import ClassVar, Protocol

import trio

HAS_EPOLL = hasattr(select, "epoll")
EVENTS_MAX = 64
"""Maximum number of events in one batch."""
TURN_SECONDS = 0.005
"""Seconds after which a batch passes through a checkpoint, so that other tasks run."""
LATE_SECONDS = 0.003
"""Seconds after which functions that were given to ``at_turn_end`` are called when one more is given, although the turn
goes on: a turn takes longer only in a process that has more to do than it can."""
HANDLERS_PER_LOOK = 4
"""Number of handler calls after which the reader compares the clock with ``TURN_SECONDS``."""

# Linux's values of EPOLLIN, EPOLLOUT, ... Both readers report them; ``select`` has no names for them elsewhere.
READABLE = 0x001
WRITABLE = 0x004
BROKEN = 0x008 | 0x010
"""EPOLLERR or EPOLLHUP: the connection is broken, or both sides have ended their sending."""
ENDED = BROKEN | 0x2000
"""EPOLLERR, EPOLLHUP or EPOLLRDHUP: the connection is broken, or the peer has ended its sending."""

_EDGE_TRIGGERED = 1 << 31
_EVENTS = READABLE | WRITABLE | 0x2000 | _EDGE_TRIGGERED

Handler = Callable[[int], object]
"""Function that a reader calls with a mask of READABLE, WRITABLE and the bits of ENDED. It must not raise."""


class Reader(Protocol):
    """Interface of a socket reader, which calls a handler when the readiness of its socket changes.

    ``register``, ``call_again``, ``watch_again`` and ``close`` do not wait. Tasks and handlers may call them.
    """

    reports_each_change: ClassVar[bool]
    """True: the reader reports each change by itself. False: the owner of a socket must call ``watch_again``."""
    now: float
    """``trio.current_time()`` for handlers, read at the start of a batch and after each checkpoint within the batch."""
    turn_began: float
    """``perf_counter()`` at the same moments. It is old if no socket has changed since: then a turn counts as long."""

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """Call ``handler`` at each change of ``sock``, until ``close(sock)``. ``sock`` must be non-blocking.

        Raises:
            OSError: the system refuses another registration.
            trio.ClosedResourceError: ``run`` has ended.
        """

    def call_again(self, sock: socket.socket) -> None:
        """Call the handler of ``sock`` once more, in a later turn of the scheduler, even if the socket does not change.

        A reader that reports each change passes the events for which the socket is ready; another one passes 0.
        """

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """Report the next READABLE or WRITABLE change of ``sock``. To be called when the socket would block."""

    def close(self, sock: socket.socket) -> None:
        """Remove the registration of ``sock``, if there is one, and close ``sock``.

        During a batch the descriptor is closed only at the end of the batch; see the module.
        """

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once: at the end of the batch, or at once outside of a batch. It must not raise."""

    def at_turn_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once: at the end of the turn of trio's loop, or at once if the reader does not see it.

        It must neither raise nor reschedule a task: trio may have decided already how long it waits for events.
        """

    async def run(self) -> None:
        """Call handlers until cancelled."""


class EpollReader:
    """``Reader`` with one epoll; see the module. Handlers are called while ``run`` runs.

    A socket may be registered before ``run`` begins, and closed before, during and after ``run``.
    """

    reports_each_change: ClassVar[bool] = True

    def __init__(self) -> None:
        self.now = self.turn_began = 0.0
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._in_batch = False
        self._to_close: list[socket.socket] = []
        """Sockets without registration, to be closed at the end of the batch."""
        self._to_call: list[Callable[[], object]] = []
        """Functions to be called at the end of the batch."""
        self._sees_turns = False
        self._due: list[Callable[[], object]] = []
        """Functions to be called at the end of the turn."""
        self._due_since = 0.0

    def __len__(self) -> int:
        """Number of registered sockets."""
        return len(self._handlers)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Call handlers until cancelled, then close the epoll. Can run once."""
        fileno, poll, handlers = self._epoll.fileno(), self._epoll.poll, self._handlers
        turn_end = _TurnEnd(self)
        try:
            trio.lowlevel.add_instrument(turn_end)
            self._sees_turns = True
            while True:
                await trio.lowlevel.wait_readable(fileno)
                self._in_batch = True
                try:
                    self.now = trio.current_time()
                    self.turn_began = perf_counter()
                    yield_at = self.turn_began + TURN_SECONDS
                    since_look = 0
                    for fd, events in poll(0, EVENTS_MAX):
                        # A socket that was closed earlier in this batch has no handler. Its number is still taken, so
                        # a handler under this number belongs to the socket that the event is about.
                        if fd in handlers:
                            handlers[fd](events)
                            since_look += 1
                            if since_look < HANDLERS_PER_LOOK:
                                continue
                            since_look = 0
                            if perf_counter() > yield_at:
                                # Safe: ``_in_batch`` stays True, so a socket that another task closes now keeps its
                                # number until the batch is over.
                                await trio.lowlevel.checkpoint()
                                self.now = trio.current_time()
                                self.turn_began = perf_counter()
                                yield_at = self.turn_began + TURN_SECONDS
                finally:
                    self._in_batch = False
                    if self._to_close or self._to_call:
                        self._end_batch()
        finally:
            self._sees_turns = False
            with suppress(KeyError):  # trio removes an instrument that has raised.
                trio.lowlevel.remove_instrument(turn_end)
            self.call_due()
            self.discard()

    def discard(self) -> None:
        """Close the epoll of a reader whose ``run`` never began or has ended. May be called again."""
        if not self._epoll.closed:
            # trio must forget the descriptor before its number can be used again.
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()

    def _end_batch(self) -> None:
        for sock in self._to_close:
            sock.close()
        self._to_close.clear()
        callbacks, self._to_call = self._to_call, []
        for callback in callbacks:
            callback()

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """Call ``handler`` at each change of ``sock``; see ``Reader``."""
        if self._epoll.closed:
            # A cancel of a server ends the reader and a connection that begins just now in any order.
            raise trio.ClosedResourceError("the socket reader has ended")
        fd = sock.fileno()
        self._epoll.register(fd, _EVENTS)
        self._handlers[fd] = handler

    def call_again(self, sock: socket.socket) -> None:
        """Call the handler of ``sock`` once more, in a later turn of the scheduler; see ``Reader``.

        EPOLL_CTL_MOD makes the kernel report again the events for which the socket is ready.
        """
        self._epoll.modify(sock.fileno(), _EVENTS)

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """Do nothing: the kernel reports each change."""

    def close(self, sock: socket.socket) -> None:
        """Remove the registration of ``sock``, if there is one, and close ``sock``; see ``Reader``."""
        if self._handlers.pop(sock.fileno(), None) is not None and not self._epoll.closed:
            # A forked process shares the epoll. If it has unregistered the sockets that it inherited, the registration
            # is gone here too, and the kernel reports ENOENT.
            with suppress(OSError):
                self._epoll.unregister(sock)
        if self._in_batch:
            self._to_close.append(sock)
        else:
            sock.close()

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the batch, or at once outside of a batch; see ``Reader``."""
        if self._in_batch:
            self._to_call.append(callback)
        else:
            callback()

    def at_turn_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at the end of the turn; see ``Reader``. Before and after ``run`` it is called at once."""
        if not self._sees_turns:
            callback()
            return
        due, now = self._due, perf_counter()
        if not due:
            self._due_since = now
        due.append(callback)
        if now - self._due_since > LATE_SECONDS:
            self.call_due()

    def call_due(self) -> None:
        """Call the functions that wait for the end of the turn."""
        callbacks, self._due = self._due, []
        try:
            for callback in callbacks:
                callback()
        except BaseException:
            # trio logs what an instrument raises and removes the instrument, so nothing may wait for it any more.
            self._sees_turns = False
            self._due = callbacks[callbacks.index(callback) + 1 :]
            self.call_due()
            raise


class _TurnEnd(trio.abc.Instrument):
    """Calls the functions that wait for the end of the turn, directly before trio waits for events."""

    def __init__(self, reader: EpollReader) -> None:
        self._reader = reader

    def before_io_wait(self, timeout: float) -> None:
        """Called by trio in each turn of its loop, when every task that was scheduled has run."""
        self._reader.call_due()


class _Watch:
    """Registration of a socket with a ``WaitReader``."""

    __slots__ = ("fd", "handler", "scope", "used")

    def __init__(self, fd: int, handler: Handler) -> None:
        self.fd = fd
        self.handler = handler
        self.scope = trio.CancelScope()
        self.used = {READABLE: trio.Event(), WRITABLE: trio.Event()}
        """For each direction: set by ``watch_again``, when the socket would block."""


class WaitReader:
    """``Reader`` with two tasks per socket, for systems without epoll. Handlers are called while ``run`` runs.

    trio's wait is level-triggered: it returns at once for as long as the socket is readable. After a report the task
    therefore waits for ``watch_again`` before it waits for the socket anew. This wait replaces EPOLLET: without it,
    unread bytes would keep the loop busy.
    """

    reports_each_change: ClassVar[bool] = False

    def __init__(self) -> None:
        self.now = self.turn_began = 0.0
        self._watches: dict[int, _Watch] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """Number of registered sockets."""
        return len(self._watches)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the tasks that wait for sockets, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                for watch in self._watches.values():
                    self._nursery.start_soon(self._run_watch, watch)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def discard(self) -> None:
        """Do nothing: there is no descriptor to close."""

    async def _run_watch(self, watch: _Watch) -> None:
        with watch.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report, watch, READABLE, trio.lowlevel.wait_readable)
                nursery.start_soon(self._report, watch, WRITABLE, trio.lowlevel.wait_writable)

    async def _report(self, watch: _Watch, event: int, wait: Callable[[int], Awaitable[None]]) -> None:
        # ClosedResourceError: the socket was closed while this task waited for it.
        with suppress(trio.ClosedResourceError):
            while self._watches.get(watch.fd) is watch:
                await wait(watch.fd)
                # A new event before the handler runs: the handler may call ``watch_again`` itself.
                watch.used[event] = used = trio.Event()
                self.now, self.turn_began = trio.current_time(), perf_counter()
                watch.handler(event)
                await used.wait()

    async def _call(self, watch: _Watch) -> None:
        await trio.lowlevel.checkpoint()
        if self._watches.get(watch.fd) is watch:
            self.now, self.turn_began = trio.current_time(), perf_counter()
            watch.handler(0)

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """Call ``handler`` at each change of ``sock``; see ``Reader``."""
        watch = _Watch(sock.fileno(), handler)
        if self._nursery is not None:
            self._nursery.start_soon(self._run_watch, watch)  # Raises if ``run`` is ending.
        self._watches[watch.fd] = watch

    def call_again(self, sock: socket.socket) -> None:
        """Call the handler of ``sock`` once more, in a later turn of the scheduler; see ``Reader``."""
        if self._nursery is not None:
            self._nursery.start_soon(self._call, self._watches[sock.fileno()])

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """Report the next READABLE or WRITABLE change of ``sock``; see ``Reader``."""
        if (watch := self._watches.get(sock.fileno())) is not None:
            watch.used[event].set()

    def close(self, sock: socket.socket) -> None:
        """Remove the registration of ``sock``, if there is one, and close ``sock``; see ``Reader``."""
        if (watch := self._watches.pop(sock.fileno(), None)) is not None:
            watch.scope.cancel(reason="the socket was closed")
            # The tasks end in a later turn. They must not wait for a new socket that gets the same number.
            trio.lowlevel.notify_closing(sock)
        sock.close()

    def after_batch(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at once: each report of this reader is a batch of its own; see ``Reader``."""
        callback()

    def at_turn_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` at once: this reader does not see the end of a turn; see ``Reader``."""
        callback()


AnyReader = EpollReader | WaitReader


def new_reader() -> AnyReader:
    """Make an ``EpollReader`` where the system has epoll, else a ``WaitReader``.

    Raises:
        OSError: the process has no descriptor left.
    """
    return EpollReader() if HAS_EPOLL else WaitReader()
