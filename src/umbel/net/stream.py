"""Byte stream over a TCP or Unix socket that a ``Reader`` watches.

Theory
------
Bytes are received in one of two ways, one at a time:

- *pulled* by a task: ``await receive_some()``;
- *pushed* to a ``Listener``: after ``listen`` its methods are called from the reader's task.

With neither, bytes stay in the socket, so that the peer's window fills and the peer stops. The stream only remembers
``_readable``: the socket may have something that nobody has read. The reader reports each change once (``epoll.py``),
so this memory must not be lost. It is set by an event, and cleared only when a ``recv`` shows that nothing is left: it
would block, or it gave less than was asked for. The second is safe only while the peer has not ended its sending. The
end of the stream may be reported together with the last bytes and never again; so once ``_ended`` is set, only an empty
``recv`` (or an error) says that all was read.

One turn reads at most ``TURN_BYTES_MAX`` of a socket that is pushed. What is left is read in the next turn, so that a
fast peer does not keep others waiting.

``send_now`` sends what the socket takes and keeps the rest; the reader sends that as the socket takes more. Whoever
must know waits in ``drained``. The unsent rest is bounded by what one caller gives, because a caller waits for
``drained`` before it gives more.

``close_now`` is legal at any time, even inside a callback. It wakes the task that receives and the task that sends with
ClosedResourceError, and reports the same to a listener; a listener that wants to hear nothing is dropped first.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import types
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Protocol

import outcome
import trio
from trio.lowlevel import checkpoint, current_task, reschedule, wait_task_rescheduled

from .epoll import BROKEN, ENDED, READABLE, WRITABLE, Reader

RECEIVE_MAX = 64 * 1024
"""Bytes of one read."""
_HAS_SOMETHING = READABLE | ENDED
TURN_BYTES_MAX = 256 * 1024
"""Bytes pushed from one socket in one turn."""
_POLLED_END = getattr(select, "POLLRDHUP", 0)
"""The event that reports the peer's end behind unread bytes, where the system has it."""
_RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends a RST, and nothing that waits to be sent."""
_TCP_INFO = getattr(socket, "TCP_INFO", -1)
_LAST_DATA_RECEIVED = slice(52, 56) if sys.platform == "linux" else slice(0)
"""Where Linux's ``struct tcp_info`` has the milliseconds since the last data came (tcp(7))."""


class Stream(Protocol):
    """Interface of a byte stream for tasks; ``PlainStream`` and ``TlsStream`` implement it.

    ``send_all`` and ``receive_some`` are those of ``trio.abc.Stream``: one task each at a time, ``b""`` at the end of
    the stream, trio's BrokenResourceError and ClosedResourceError. Sending what can be sent at once need not be a
    checkpoint; receiving always is.
    """

    async def send_all(self, data: bytes) -> None:
        """Send all of it."""

    async def receive_some(self) -> bytes:
        """Receive what is there, at least one byte; empty at the end of the stream."""
        ...

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing that is still to be read, not even its end."""
        ...

    def close_now(self) -> None:
        """Close at once. A task that sends or receives gets ClosedResourceError. May be called twice."""

    def close(self) -> None:
        """Close in order: with ``close_notify`` over TLS, if the socket takes it at once."""


class Listener(Protocol):
    """Receiver of the bytes that a stream pushes. Runs in the reader's task: must not raise, and must do little."""

    def on_data(self, data: bytes) -> bool:
        """Take bytes. Return whether more are wanted; if not, what follows stays in the socket until ``listen``."""
        ...

    def on_eof(self) -> None:
        """The peer has ended its sending. Called once."""

    def on_error(self, error: Exception) -> None:
        """The stream is broken (trio.BrokenResourceError), or was closed (trio.ClosedResourceError). Called once."""


class _Woken:
    """Outcome of a wake-up without a value. Otherwise trio makes an object of that kind for each wake-up."""

    __slots__ = ()

    def unwrap(self) -> None:
        """As of ``outcome.Value(None)``, any number of times."""


_WOKEN: Any = _Woken()


def _parking_request(abort: Callable[[Any], trio.lowlevel.Abort]) -> object:
    """The object by which ``wait_task_rescheduled(abort)`` asks trio to park a task, with ``abort`` for a cancel.

    trio makes this object for each wait, which costs as much as the rest of it. It holds nothing but ``abort`` and
    never changes, so a task that waits again and again may yield the same one.
    """
    waiting = wait_task_rescheduled(abort)  # noqa: ASYNC105 - it is not to wait
    request: object = waiting.send(None)
    waiting.close()
    return request


@types.coroutine
def _park(request: object) -> Generator[Any, Any, None]:
    """``wait_task_rescheduled`` with a request that was made before. A cancel is raised from here."""
    (yield request).unwrap()


class PlainStream:
    """Byte stream over a plain socket; see the module. Takes over ``sock``, which must be connected."""

    __slots__ = (
        "_closed",
        "_ended",
        "_finds_changes",
        "_listener",
        "_parking",
        "_poll",
        "_readable",
        "_reader",
        "_receiver",
        "_sender",
        "_socket",
        "ended_at",
        "on_end",
        "send_error",
        "unsent",
    )

    def __init__(self, sock: socket.socket, reader: Reader) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._reader = reader
        self._listener: Listener | None = None
        self._receiver: trio.lowlevel.Task | None = None
        self._sender: trio.lowlevel.Task | None = None
        self.unsent: bytes | memoryview = b""
        """What ``send_now`` keeps because the socket has not taken it yet."""
        self.send_error: trio.BrokenResourceError | trio.ClosedResourceError | None = None
        """Why what was kept could not be sent."""
        self._readable = False
        self._ended = False
        self.ended_at: float | None = None
        """When the peer's end was reported, in ``trio.current_time()``; None: not yet, or not by this reader."""
        self.on_end: Callable[[bool], object] | None = None
        """Called by the reader at each report of the peer's end, even where nobody reads; True: the connection is
        broken. It must not raise, and must do little."""
        self._parking: object | None = None
        """With what a task that waits to read asks trio to park it; made for the first wait."""
        self._closed = False
        self._finds_changes = reader.reports_each_change
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | _POLLED_END)
        reader.register(sock, self._on_ready)

    # Receiving.

    def listen(self, listener: Listener) -> None:
        """Push what comes to ``listener``, from the next turn on, until ``unlisten`` or the end of the stream."""
        self._listener = listener
        if self._readable:
            self._reader.call_again(self._socket)

    def unlisten(self) -> None:
        """Push nothing more. What comes stays in the socket."""
        self._listener = None

    async def receive_some(self, limit: int = RECEIVE_MAX) -> bytes:
        """Receive what is there, of 1 to ``limit`` bytes; empty at the end of the stream. Cancelled, it loses nothing.

        Raises:
            trio.TooSlowError: ``stop_receiving`` was called.
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
            trio.BusyResourceError: another task is receiving.
        """
        while True:
            # A checkpoint before anything is taken out of the socket: a cancel that came later would lose it.
            await self.wait_readable()
            if (data := self.receive_now(limit)) is not None:
                return data

    def stop_receiving(self) -> None:
        """Wake the task that waits in ``receive_some``, which raises TooSlowError. Nothing is lost."""
        task, self._receiver = self._receiver, None
        if task is not None:
            reschedule(task, outcome.Error(trio.TooSlowError()))

    def wait_readable(self) -> Awaitable[object]:
        """Wait until ``receive_now`` may have something, or the stream is closed. To be awaited at once; a checkpoint.

        No coroutine of its own: each wake-up would pass through its frame.

        Raises:
            as ``receive_some``.
        """
        if self._receiver is not None or self._listener is not None:
            raise trio.BusyResourceError("another task is receiving already")
        if self._closed:
            raise trio.ClosedResourceError
        if self._readable:
            return checkpoint()  # noqa: ASYNC105 - the caller awaits it
        self._receiver = current_task()
        if self._parking is None:
            self._parking = _parking_request(self._abort_receiving)
        return _park(self._parking)

    def _abort_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def receive_now(self, limit: int = RECEIVE_MAX) -> bytes | None:
        """What is there, up to ``limit`` bytes; empty at the end of the stream, None if nothing is there.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
        """
        if not self._readable:
            if self._closed:
                raise trio.ClosedResourceError
            return None
        try:
            data = self._socket.recv(limit)
        except BlockingIOError:
            self._has_read_all()
            return None
        except OSError as error:
            raise self._broken(error) from error
        if len(data) < limit and not self._ended:
            self._readable = False  # As in _has_read_all.
            if not self._finds_changes:
                self._reader.watch_again(self._socket, READABLE)
        return data

    def _has_read_all(self) -> None:
        """Nothing more is in the socket; its next change is reported."""
        self._readable = False
        if not self._finds_changes:
            self._reader.watch_again(self._socket, READABLE)

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing that is still to be read, not even its end."""
        return not (self._closed or self._poll.poll(0))

    def received_ago(self) -> float | None:
        """Seconds since the kernel received the peer's last data, however late it was read; None if not known."""
        if self._closed:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_RECEIVED.stop)
        except OSError:  # Not TCP, or another system.
            return None
        return int.from_bytes(info[_LAST_DATA_RECEIVED], sys.byteorder) / 1000 if info else None

    def poll_readable(self) -> None:
        """Ask the kernel whether there are bytes to read: ``receive_now`` knows only what the reader has reported."""
        self._readable = self._readable or (not self._closed and bool(self._poll.poll(0)))

    def peer_end(self) -> int:
        """Ask the kernel whether the peer has ended its sending: bits of ENDED, with BROKEN if the connection is."""
        if self._closed:
            return 0
        if _POLLED_END:
            for _, events in self._poll.poll(0):
                return events & ENDED
            return 0
        try:
            return 0 if self._socket.recv(1, socket.MSG_PEEK) else ENDED & ~BROKEN
        except BlockingIOError:
            return 0
        except OSError:
            return ENDED

    # The reader's calls.

    def _on_ready(self, events: int) -> None:
        """Handle a change of the socket."""
        if events & ENDED and not self._ended:
            self._ended = True
            self.ended_at = trio.current_time()
        if events & _HAS_SOMETHING:
            self._readable = True
        if self.unsent and events & WRITABLE:
            self._send_rest()
        if self._readable:
            if self._listener is not None:
                self._push()
            elif (task := self._receiver) is not None:
                self._receiver = None
                reschedule(task, _WOKEN)
        if events & ENDED or not self._finds_changes:
            self._report_end(events)

    def _report_end(self, events: int) -> None:
        """Call ``on_end`` if the peer has ended its sending. The last act of a change: it may close the stream."""
        if self.on_end is not None:
            if not self._finds_changes and self._receiver is None and self._readable:
                events |= self.peer_end()  # This reader reports no end. What nobody reads may be one.
            if events & ENDED:
                self.on_end(events & BROKEN != 0)

    def _push(self) -> None:
        """Read what is there, and give it to the listener."""
        left = TURN_BYTES_MAX
        while (listener := self._listener) is not None and self._readable:
            if left <= 0:
                self._reader.call_again(self._socket)
                return
            try:
                data = self._socket.recv(RECEIVE_MAX)
            except BlockingIOError:
                self._has_read_all()
                return
            except OSError as error:
                self._listener = None
                broken = self._broken(error)
                broken.__cause__ = error
                listener.on_error(broken)
                del broken  # The traceback of its cause holds this frame.
                return
            size = len(data)
            if not size:
                self._listener = None
                listener.on_eof()
                return
            if size < RECEIVE_MAX and not self._ended:
                self._readable = False  # As in _has_read_all.
                if not self._finds_changes:
                    self._reader.watch_again(self._socket, READABLE)
            left -= size
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None

    # Sending.

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send what the socket takes, and keep the rest to be sent as it takes more; whether it took all.

        After False not to be called again before ``drained`` has returned.

        Raises:
            trio.BrokenResourceError: the connection is broken. What the peer sent before can still be received.
            trio.ClosedResourceError: the stream is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        try:
            # Nearly always the socket takes all at once.
            sent = self._socket.send(data)
        except OSError:
            return self._hand_over(data)
        return sent == len(data) or self._hand_over(memoryview(data)[sent:])

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        """``send_now``, then ``listen``. A connection that is broken for sending shows when it is read.

        Raises:
            trio.ClosedResourceError: the stream is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        try:
            sent = self._socket.send(data)
            if sent != len(data):
                self._hand_over(memoryview(data)[sent:])
        except OSError:
            with suppress(trio.BrokenResourceError):  # What the peer sent before can still be received.
                self._hand_over(data)
        except trio.BrokenResourceError:
            pass  # As above.
        self._listener = listener
        if self._readable:
            self._reader.call_again(self._socket)

    async def drained(self) -> None:
        """Wait until the socket has taken all that ``send_now`` kept. Cancelled, the rest is still sent.

        Raises:
            as ``send_now``.
        """
        while self.unsent:
            self._sender = current_task()
            await wait_task_rescheduled(self._abort_sending)
        # Closed after all was sent, the wait has been successful.
        error = self.send_error
        if error is not None:
            # A copy: the frames of the one that is raised hold this stream, and what was to be sent.
            raise type(error)(*error.args) from error.__cause__

    def send_more(self) -> None:
        """Try to send what ``send_now`` kept, though the reader has not reported that the socket takes more."""
        if self.unsent:
            self._send_rest()

    async def send_all(self, data: bytes) -> None:
        """Send all of it. No checkpoint if the socket takes it at once, but nothing is sent in a cancelled scope.

        Cancelled in the middle, the stream can only be closed.

        Raises:
            as ``send_now``.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.send_now(data):
            await self.drained()

    def _abort_sending(self, _: object) -> trio.lowlevel.Abort:
        self._sender = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _hand_over(self, data: bytes | memoryview) -> bool:
        """Send bytes and keep the rest; whether the socket took all."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.unsent = b""
            error.__traceback__ = None  # It holds this frame, and that the stream and what was to be sent.
            self.send_error = self._broken(error)
            raise self.send_error from error
        if sent == len(data):
            self.unsent = b""
            return True
        self.unsent = memoryview(data)[sent:]
        if not self._finds_changes:
            self._reader.watch_again(self._socket, WRITABLE)
        return False

    def _send_rest(self) -> None:
        """Send the rest, and wake the task that waits in ``drained`` when all is sent or nothing can be."""
        try:
            if not self._hand_over(self.unsent):
                return
        except trio.BrokenResourceError:
            pass  # Kept in send_error for the next send. A read may still give an answer.
        task, self._sender = self._sender, None
        if task is not None:
            reschedule(task, _WOKEN)

    def _broken(self, error: OSError) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(f"the socket is broken: {error}")

    # The end.

    def send_eof(self) -> None:
        """Close the sending half of the connection; receiving goes on. Never raises."""
        if not self._closed:
            with suppress(OSError):  # The peer has gone.
                self._socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the close a reset, so that the peer does not take it for the end of what was sent."""
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self) -> None:
        """Close, which sends a FIN."""
        self.close_now()

    def close_now(self) -> None:
        """Close at once, whatever is under way. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._readable = False
        self._parking = None  # It holds this stream.
        if self.unsent:
            self.unsent = b""
            self.send_error = trio.ClosedResourceError("closed while sending")
        elif self.send_error is not None:
            self.send_error.__traceback__ = None  # Its frames hold this stream.
        self._reader.close(self._socket)
        for task in (self._receiver, self._sender):
            if task is not None:
                reschedule(task, _WOKEN)
        self._receiver = self._sender = None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_error(trio.ClosedResourceError("the stream was closed"))
