"""Socket reader: one task that reports the readiness of many sockets, by one epoll.

Theory
------
trio waits for a socket with one registration, one task switch and one system call per wait. A gateway waits for
hundreds of sockets at once, each for a small answer. Here every socket is registered once, until it is closed, with an
epoll of the reader's own. trio waits for that epoll's descriptor, and one turn serves all sockets that became ready.

*Registration is edge-triggered* (EPOLLET) for reading, writing and the peer's end (EPOLLRDHUP): a change of a socket
is reported once. A handler that leaves bytes unread is not called again for them. It must either read until the socket
has no more, or remember that there is more, and ask for another call with ``call_again``.

*A batch is served in one turn.* One ``poll`` gives at most ``EVENTS_MAX`` events. Their handlers run without a
checkpoint in between, so that tasks that they wake run after the whole batch, together; only a batch that takes longer
than ``TURN_SECONDS`` lets other tasks run in its middle. An event that was polled is never dropped: edge-triggered, it
would not come again.

*Numbers.* A descriptor's number can be given to a new socket as soon as the old one is closed. If a handler closed a
socket in the middle of a batch, a later event of the same batch could belong to the old socket and reach the new one.
So ``close`` unregisters at once, but closes the socket only when the batch is over. Unregistering always comes before
closing: a closed descriptor whose file lives on in another process (after a fork) would stay in the epoll for ever.

*Handlers* run in the reader's task. They have no context of any request, must not raise and must do little. The
reader's task is protected from KeyboardInterrupt, so a handler never stops half-way.

Where the system has no epoll, ``WaitReader`` offers the same by a task per socket that uses trio's own waiting.
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
"""Events of one batch."""
TURN_SECONDS = 0.005
"""Seconds of a batch after which other tasks get a turn, however many handlers are still to be called."""
HANDLERS_PER_LOOK = 4
"""Handlers after which the reader reads the clock."""

# The values of Linux, so that streams can use them with either reader.
READABLE = 0x001
WRITABLE = 0x004
BROKEN = 0x008 | 0x010
"""EPOLLERR or EPOLLHUP: the connection is broken, or both sides have ended their sending."""
ENDED = BROKEN | 0x2000
"""The same, or EPOLLRDHUP: the peer has ended its sending."""

_EDGE_TRIGGERED = 1 << 31
_EVENTS = READABLE | WRITABLE | 0x2000 | _EDGE_TRIGGERED

Handler = Callable[[int], object]
"""Called with a mask of READABLE, WRITABLE and the bits of ENDED. Must not raise."""


class Reader(Protocol):
    """Interface of a socket reader: it reports readiness of sockets to handlers, in the turns of one task."""

    reports_each_change: ClassVar[bool]
    """Whether ``watch_again`` need not be called."""
    now: float
    """For handlers: ``trio.current_time()``, read once per batch (per ``TURN_SECONDS`` of a long one)."""

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """Call ``handler`` at each change of ``sock``, until ``close``.

        Raises:
            OSError: the system refuses another registration.
        """

    def call_again(self, sock: socket.socket) -> None:
        """Call the handler in the next turn, with whatever the socket is ready for, though nothing changes."""

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """Report the next READABLE or WRITABLE change of ``sock``, which was used until it would block."""

    def close(self, sock: socket.socket) -> None:
        """Unregister ``sock`` if it is registered, and close it, at the latest when the batch is over."""

    async def run(self) -> None:
        """Call handlers until cancelled."""


class EpollReader:
    """``Reader`` by one epoll. Works while ``run`` runs; sockets may be closed before and after that, too."""

    reports_each_change: ClassVar[bool] = True

    def __init__(self) -> None:
        self.now = 0.0
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._in_batch = False
        self._to_close: list[socket.socket] = []

    def __len__(self) -> int:
        """How many sockets are registered."""
        return len(self._handlers)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Call handlers until cancelled, then close the epoll."""
        fileno, poll, handlers = self._epoll.fileno(), self._epoll.poll, self._handlers
        try:
            while True:
                await trio.lowlevel.wait_readable(fileno)
                self._in_batch = True
                try:
                    self.now = trio.current_time()
                    yield_at = perf_counter() + TURN_SECONDS
                    since_look = 0
                    for fd, events in poll(0, EVENTS_MAX):
                        # One that was closed earlier in this batch has no handler any more.
                        if fd in handlers:
                            handlers[fd](events)
                            since_look += 1
                            if since_look < HANDLERS_PER_LOOK:
                                continue
                            since_look = 0
                            if perf_counter() > yield_at:
                                # Sockets that were closed keep their numbers until the batch is over, so this is safe.
                                await trio.lowlevel.checkpoint()
                                self.now = trio.current_time()
                                yield_at = perf_counter() + TURN_SECONDS
                finally:
                    self._in_batch = False
                    if self._to_close:
                        self._end_batch()
        finally:
            self.discard()

    def discard(self) -> None:
        """Close the epoll. For a reader whose ``run`` never began; may be called twice."""
        if not self._epoll.closed:
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()

    def _end_batch(self) -> None:
        for sock in self._to_close:
            sock.close()
        self._to_close.clear()

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """See ``Reader``."""
        fd = sock.fileno()
        self._epoll.register(fd, _EVENTS)
        self._handlers[fd] = handler

    def call_again(self, sock: socket.socket) -> None:
        """See ``Reader``. Modifying a registration makes the kernel report again what the socket is ready for."""
        self._epoll.modify(sock.fileno(), _EVENTS)

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """See ``Reader``. Nothing to do: the kernel reports each change."""

    def close(self, sock: socket.socket) -> None:
        """See ``Reader``."""
        if self._handlers.pop(sock.fileno(), None) is not None and not self._epoll.closed:
            # A fork that closed its copies of our sockets has taken them out of the epoll that it shares with us.
            with suppress(OSError):
                self._epoll.unregister(sock)
        if self._in_batch:
            self._to_close.append(sock)
        else:
            sock.close()


class _Watch:
    """Registration of a socket with a ``WaitReader``."""

    __slots__ = ("fd", "handler", "scope", "used")

    def __init__(self, fd: int, handler: Handler) -> None:
        self.fd = fd
        self.handler = handler
        self.scope = trio.CancelScope()
        self.used = {READABLE: trio.Event(), WRITABLE: trio.Event()}
        """Set when the socket was used until it would block."""


class WaitReader:
    """``Reader`` by two tasks per socket, for systems without epoll. Works while ``run`` runs.

    trio reports a readable socket for as long as it is readable. So after a report the task waits until the socket was
    used until it would block, which is what an edge-triggered epoll does by itself.
    """

    reports_each_change: ClassVar[bool] = False

    def __init__(self) -> None:
        self.now = 0.0
        self._watches: dict[int, _Watch] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """How many sockets are registered."""
        return len(self._watches)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Run the tasks that wait, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                for watch in self._watches.values():
                    self._nursery.start_soon(self._run_watch, watch)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def discard(self) -> None:
        """Nothing to do: there is no descriptor to close."""

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
                watch.used[event] = used = trio.Event()
                self.now = trio.current_time()
                watch.handler(event)
                await used.wait()

    async def _call(self, watch: _Watch) -> None:
        await trio.lowlevel.checkpoint()
        if self._watches.get(watch.fd) is watch:
            self.now = trio.current_time()
            watch.handler(0)

    def register(self, sock: socket.socket, handler: Handler) -> None:
        """See ``Reader``."""
        watch = _Watch(sock.fileno(), handler)
        if self._nursery is not None:
            self._nursery.start_soon(self._run_watch, watch)  # Raises if ``run`` is ending.
        self._watches[watch.fd] = watch

    def call_again(self, sock: socket.socket) -> None:
        """See ``Reader``."""
        if self._nursery is not None:
            self._nursery.start_soon(self._call, self._watches[sock.fileno()])

    def watch_again(self, sock: socket.socket, event: int) -> None:
        """See ``Reader``."""
        if (watch := self._watches.get(sock.fileno())) is not None:
            watch.used[event].set()

    def close(self, sock: socket.socket) -> None:
        """See ``Reader``."""
        if (watch := self._watches.pop(sock.fileno(), None)) is not None:
            watch.scope.cancel(reason="the socket was closed")
            trio.lowlevel.notify_closing(sock)
        sock.close()


AnyReader = EpollReader | WaitReader


def new_reader() -> AnyReader:
    """An ``EpollReader`` where the system has epoll, else a ``WaitReader``.

    Raises:
        OSError: the process has no descriptor left.
    """
    return EpollReader() if HAS_EPOLL else WaitReader()
