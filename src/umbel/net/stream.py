"""Byte stream over a TCP or Unix socket that a ``Reader`` watches.

Theory
------
*Receiving.* Bytes are received in one of two ways, one way at a time:

- *pulled* by a task with ``await receive_some()``;
- *pushed* to a ``Listener``: after ``listen`` the reader's task calls the listener's methods.

While neither happens, bytes stay in the socket, so TCP's flow control stops the peer.

*The flag* ``_readable`` says that the socket may have something unread. The reader reports each change once
(``epoll.py``), so the flag must not be lost. An event sets the flag. While the stream is open, only ``recv`` clears it,
in two cases:

- ``recv`` would block;
- ``recv`` returned fewer bytes than were asked for, and ``_ended`` is not set.

The second case needs the condition because the end of the peer's sending may be reported together with the last bytes,
and never again. Once ``_ended`` is set, the flag therefore stays set, and each later ``recv`` finds the end again.

*Fairness.* One turn of the reader pushes at most ``TURN_BYTES_MAX`` of one socket. ``call_again`` requests the next
turn for the rest, so a fast peer does not delay the others. A task that passes bytes on without a wait calls
``pass_turn`` for each piece. The time is counted from the reader's last batch, not per task: so a turn of the event
loop lasts at most ``PIECES_SECONDS`` and a piece of each task, however many tasks there are.

*Sending.* ``send_now`` gives the socket what it takes and keeps the rest in ``unsent``. The reader's task sends the
rest as the socket takes more, and wakes the task that waits in ``drained``. One task sends at a time, and waits for
``drained`` before the next ``send_now``. So ``unsent`` is at most what one ``send_now`` was given.

*Cancellation.* A cancel of ``receive_some`` or ``wait_readable`` takes effect before bytes are taken out of the socket,
so no byte is lost. A cancel of ``drained`` only ends the wait; the reader goes on sending ``unsent``.

*Closing.* ``close_now`` is allowed at any time, even inside a handler or a listener. The task that receives and the
task that sends get ClosedResourceError. The listener gets ``on_error(ClosedResourceError)``, unless ``unlisten`` was
called before.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Protocol

import outcome
import trio
from trio.lowlevel import (
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from .epoll import BROKEN, ENDED, READABLE, WRITABLE, Reader
from .parking import WOKEN, park, parking_request

RECEIVE_MAX = 64 * 1024
"""Maximum bytes of one ``recv``, if the caller gives no other limit, and of what ``send_part`` keeps."""
PIECES_SECONDS = 0.001
"""Seconds of a turn of the event loop after which ``pass_turn`` lets other tasks run."""
_HAS_SOMETHING = READABLE | ENDED
TURN_BYTES_MAX = 256 * 1024
"""Maximum bytes that are pushed from one socket in one turn of the reader."""
_POLLED_END = getattr(select, "POLLRDHUP", 0)
"""The ``poll`` event for the end of the peer's sending, even behind unread bytes; 0 where the system has none."""
_RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which ``close`` sends a RST and discards unsent bytes."""
_TCP_INFO = getattr(socket, "TCP_INFO", -1)
_LAST_DATA_RECEIVED = slice(52, 56) if sys.platform == "linux" else slice(0)
"""Position of ``tcpi_last_data_recv`` in Linux's ``struct tcp_info``: milliseconds since the last data came."""


class Stream(Protocol):
    """Interface of a byte stream for tasks.

    ``send_all`` and ``receive_some`` have the contract of ``trio.abc.Stream``: one task each at a time, ``b""`` at the
    end of the stream, trio's BrokenResourceError and ClosedResourceError. One difference: a send that the socket takes
    at once need not be a checkpoint.
    """

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``."""

    async def receive_some(self) -> bytes:
        """Receive at least one byte; ``b""`` at the end of the stream."""
        ...

    def is_quiet(self) -> bool:
        """Whether nothing is unread: neither bytes nor the end of the peer's sending."""
        ...

    def close_now(self) -> None:
        """Close at once. A task that sends or receives gets ClosedResourceError. May be called again."""

    def send_eof(self) -> None:
        """End the sending direction; receiving goes on. Never raises."""

    def close(self) -> None:
        """Close without waiting; over TLS with a ``close_notify``, if the socket takes it at once."""


class Listener(Protocol):
    """Receiver of the bytes that a stream pushes. Its methods run in the reader's task; they must not raise or wait."""

    def on_data(self, data: bytes) -> bool:
        """Take received bytes. Return True to get more; after False, bytes stay in the socket until ``listen``."""
        ...

    def on_eof(self) -> None:
        """Called once when the peer has ended its sending."""

    def on_error(self, error: Exception) -> None:
        """Called once when the stream is broken (trio.BrokenResourceError) or was closed (trio.ClosedResourceError)."""


class Poll(Protocol):
    """What a stream asks for the state of its socket; ``select.poll`` with one descriptor."""

    def poll(self, timeout: float, /) -> list[tuple[int, int]]:
        """The descriptor with its events (POLLIN, POLLRDHUP, POLLHUP, POLLERR); empty without an event."""
        ...


class PlainStream:
    """Byte stream over a plain socket; see the module. Takes over ``sock``, which must be connected, and closes it.

    Raises:
        OSError: the system refuses another registration. The socket is left open.
    """

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
        "_soon",
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
        """Bytes that were given to ``send_now`` and that the socket has not taken yet."""
        self._soon: tuple[bytes, Callable[[], object]] | None = None
        """Bytes that ``send_soon`` will send, and what it calls if the socket does not take all of them."""
        self.send_error: trio.BrokenResourceError | trio.ClosedResourceError | None = None
        """Why ``unsent`` could not be sent; None: no error."""
        self._readable = False
        self._ended = False
        self.ended_at: float | None = None
        """When the reader reported the end of the peer's sending, in ``trio.current_time()``; None: not reported."""
        self.on_end: Callable[[bool], object] | None = None
        """Called by the reader at each report of the end of the peer's sending, even while nobody reads. The argument
        says whether the connection is broken. The function must not raise or wait; it may close the stream."""
        self._parking: object | None = None
        """The request of ``parking_request``; made for the first wait."""
        self._closed = False
        self._finds_changes = reader.reports_each_change
        self._poll = self._new_poll(sock)
        reader.register(sock, self._on_ready)

    @staticmethod
    def _new_poll(sock: socket.socket) -> Poll:
        """The object that tells without waiting whether something is unread."""
        poll = select.poll()
        poll.register(sock, select.POLLIN | _POLLED_END)
        return poll

    # Receiving.

    def listen(self, listener: Listener) -> None:
        """Push received bytes to ``listener``, from the next turn of the reader on.

        Pushing ends with ``unlisten``, with False from ``on_data``, and with the end of the stream.
        """
        self._listener = listener
        if self._readable:
            self._reader.call_again(self._socket)

    def unlisten(self) -> None:
        """Push nothing more. Received bytes stay in the socket."""
        self._listener = None

    async def receive_some(self, limit: int = RECEIVE_MAX) -> bytes:
        """Receive 1 to ``limit`` bytes; ``b""`` at the end of the stream. A cancel loses no bytes.

        Raises:
            trio.TooSlowError: ``stop_receiving`` was called.
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
            trio.BusyResourceError: another task is receiving, or a listener is.
        """
        while True:
            # The checkpoint comes before bytes are taken out of the socket: a later cancel would lose the bytes.
            await self.wait_readable()
            if (data := self.receive_now(limit)) is not None:
                return data

    def pass_turn(self) -> Awaitable[object]:
        """Let other tasks run if this turn of the event loop has lasted for ``PIECES_SECONDS``; see "Fairness".

        The result must be awaited at once. A cancel that is pending is raised in any case.
        """
        if perf_counter() - self._reader.turn_began > PIECES_SECONDS:
            return checkpoint()  # noqa: ASYNC105 - the caller awaits it
        return checkpoint_if_cancelled()  # noqa: ASYNC105 - the caller awaits it

    async def receive_ready(self, limit: int = RECEIVE_MAX) -> bytes | None:
        """Receive what has come already, as ``receive_some``; None if nothing has. Never waits for the peer.

        Passes the turn (``pass_turn``), unless it returns None. A cancel loses no bytes.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: the stream is closed.
        """
        if self._readable:
            await self.pass_turn()
        return self.receive_now(limit)

    def stop_receiving(self) -> None:
        """Make the task that waits in ``receive_some`` or ``wait_readable`` raise TooSlowError. Loses no bytes."""
        task, self._receiver = self._receiver, None
        if task is not None:
            reschedule(task, outcome.Error(trio.TooSlowError()))

    def wait_readable(self) -> Awaitable[object]:
        """Wait until ``receive_now`` may have something, or the stream is closed. The result must be awaited at once.

        Always a checkpoint. A plain function, because a coroutine would add a frame to each wake-up.

        Raises:
            trio.BusyResourceError: another task is receiving, or a listener is.
            trio.ClosedResourceError: the stream is closed.
            trio.TooSlowError: ``stop_receiving`` was called.
        """
        if self._receiver is not None or self._listener is not None:
            raise trio.BusyResourceError("another task is receiving already")
        if self._closed:
            raise trio.ClosedResourceError
        if self._readable:
            return checkpoint()  # noqa: ASYNC105 - the caller awaits it
        self._receiver = current_task()
        if self._parking is None:
            self._parking = parking_request(self._abort_receiving)
        return park(self._parking)

    def _abort_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def receive_now(self, limit: int = RECEIVE_MAX) -> bytes | None:
        """Take up to ``limit`` received bytes without waiting; None if there are none, ``b""`` at the end of stream.

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
            # ``_has_read_all``, without the cost of a call.
            self._readable = False
            if not self._finds_changes:
                self._reader.watch_again(self._socket, READABLE)
        return data

    def _has_read_all(self) -> None:
        """Note that the socket is empty, and have its next change reported."""
        self._readable = False
        if not self._finds_changes:
            self._reader.watch_again(self._socket, READABLE)

    def is_quiet(self) -> bool:
        """Whether nothing is unread in the socket: neither bytes nor the end of the peer's sending. Asks the kernel."""
        return not (self._closed or self._poll.poll(0))

    def received_ago(self) -> float | None:
        """Seconds since the kernel received the peer's last data, whenever the data was read; None if not known."""
        if self._closed:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAST_DATA_RECEIVED.stop)
        except OSError:  # Not TCP, or another system.
            return None
        return int.from_bytes(info[_LAST_DATA_RECEIVED], sys.byteorder) / 1000 if info else None

    def unread(self) -> int:
        """The number of bytes that the kernel has received for this socket and that were not read yet; 0 if closed."""
        if self._closed:
            return 0
        return int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder)

    def poll_readable(self) -> None:
        """Ask the kernel whether bytes are unread. ``receive_now`` then finds them before the reader reports them."""
        self._readable = self._readable or (not self._closed and bool(self._poll.poll(0)))

    def peer_end(self) -> int:
        """Ask the kernel whether the peer has ended its sending.

        Return bits of ENDED; bits of BROKEN are among them if the connection is broken. 0: the peer can still send.
        """
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
        """Handle ``events`` of the socket, in this order: send the rest, push or wake the receiver, report the end."""
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
                reschedule(task, WOKEN)
        if events & ENDED or not self._finds_changes:
            self._report_end(events)

    def _report_end(self, events: int) -> None:
        """Call ``on_end`` if the peer has ended its sending. Must be the last step: ``on_end`` may close the stream."""
        if self.on_end is not None:
            if not self._finds_changes and self._receiver is None and self._readable:
                events |= self.peer_end()  # A ``WaitReader`` reports no end. The unread event may be one.
            if events & ENDED:
                self.on_end(events & BROKEN != 0)

    def _push(self) -> None:
        """Read and give the bytes to the listener, ``TURN_BYTES_MAX`` at most."""
        left = TURN_BYTES_MAX
        # The listener is read in each round: ``on_data`` may close the stream, stop listening or change the listener.
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
                # ``_has_read_all``, before ``on_data``, which may close the stream.
                self._readable = False
                if not self._finds_changes:
                    self._reader.watch_again(self._socket, READABLE)
            left -= size
            if not listener.on_data(data) and self._listener is listener:
                self._listener = None

    # Sending.

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send what the socket takes at once, and keep the rest, which the reader's task sends later.

        Return whether the socket took everything. After False, ``drained`` must return before the next ``send_now``.

        Raises:
            trio.BrokenResourceError: the connection is broken. Bytes that the peer has sent can still be received.
            trio.ClosedResourceError: the stream is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._soon is not None and not self._send_soon():
            # Behind the bytes of ``send_soon`` that the socket has not taken.
            self.unsent = b"".join((self.unsent, data))
            return False
        try:
            sent = self._socket.send(data)
        except OSError:
            return self._hand_over(data)
        return sent == len(data) or self._hand_over(memoryview(data)[sent:])

    def send_soon(self, data: bytes, on_rest: Callable[[], object]) -> bool:
        """Send ``data`` at the end of the turn (``Reader.at_turn_end``), or before the next send or the close.

        For a message after which nothing is sent until the peer sends something. Nothing may be in ``unsent``. If the
        socket does not take everything, the rest is kept in ``unsent``, and ``on_rest()`` is called in a later turn: it
        must have a task wait in ``drained``. A broken connection is not raised; whoever receives finds it.

        Returns:
            whether that is possible; False: ``data`` must be given to ``send_now``.

        Raises:
            trio.ClosedResourceError: the stream is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._soon is not None:
            return False
        self._soon = data, on_rest
        self._reader.at_turn_end(self._send_soon)
        return True

    def _send_soon(self) -> bool:
        """Send the bytes of ``send_soon``, if there are any. Return whether nothing of them is left."""
        if self._soon is None:
            return True
        (data, on_rest), self._soon = self._soon, None
        try:
            if self._hand_over(data):
                return True
        except trio.BrokenResourceError:
            return True
        # Not called here: at the end of a turn, no task may be rescheduled. trio's token also ends its wait for events.
        trio.lowlevel.current_trio_token().run_sync_soon(on_rest)
        return False

    def wake_receiver(self) -> None:
        """Let the task that waits in ``wait_readable`` return, although nothing may have come."""
        task, self._receiver = self._receiver, None
        if task is not None:
            reschedule(task, WOKEN)

    def send_part(self, data: bytes | memoryview) -> int:
        """``send_now``, but keep at most ``RECEIVE_MAX`` bytes in ``unsent``.

        Return how many bytes of ``data`` were sent or kept. The caller sends the others after ``drained``.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as ``send_now``.
        """
        size = len(data)
        if not self.send_now(data) and (excess := len(self.unsent) - RECEIVE_MAX) > 0:
            # ``send_now`` has asked for the next report of a writable socket, which any rest needs.
            self.unsent = memoryview(self.unsent)[:RECEIVE_MAX]
            return size - excess
        return size

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        """``send_now``, then ``listen``. A broken connection is not raised; the listener gets the error when it reads.

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
            with suppress(trio.BrokenResourceError):  # Bytes that the peer has sent can still be received.
                self._hand_over(data)
        except trio.BrokenResourceError:
            pass  # From ``_hand_over`` of the rest; bytes that the peer has sent can still be received.
        self._listener = listener
        if self._readable:
            self._reader.call_again(self._socket)

    async def drained(self) -> None:
        """Wait until the socket has taken all of ``unsent``. A cancel only ends the wait; the rest is still sent.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            trio.ClosedResourceError: the stream was closed before everything was sent.
        """
        while self.unsent:
            self._sender = current_task()
            await wait_task_rescheduled(self._abort_sending)
        # No look at ``_closed``: if the stream was closed after everything was sent, the wait has succeeded.
        error = self.send_error
        if error is not None:
            # A copy is raised: the traceback of a raised exception holds this stream and the unsent bytes.
            raise type(error)(*error.args) from error.__cause__

    def send_more(self) -> None:
        """Try to send ``unsent`` now, before the reader reports that the socket takes more."""
        if self.unsent:
            self._send_rest()

    async def send_all(self, data: bytes) -> None:
        """Send all of ``data``. Not a checkpoint if the socket takes it at once; sends nothing in a cancelled scope.

        After a cancel in the middle the stream can only be closed.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as ``send_now``.
        """
        await checkpoint_if_cancelled()
        if not self.send_now(data):
            await self.drained()

    def _abort_sending(self, _: object) -> trio.lowlevel.Abort:
        self._sender = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _hand_over(self, data: bytes | memoryview) -> bool:
        """Send ``data`` and keep the rest in ``unsent``. Return whether the socket took everything."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.unsent = b""
            error.__traceback__ = None  # The traceback holds this frame, and so the stream and the unsent bytes.
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
        """Send ``unsent``; wake the task in ``drained`` if everything is sent or the connection is broken."""
        try:
            if not self._hand_over(self.unsent):
                return
        except trio.BrokenResourceError:
            pass  # ``send_error`` holds it for ``drained``. Bytes that the peer has sent can still be received.
        task, self._sender = self._sender, None
        if task is not None:
            reschedule(task, WOKEN)

    def _broken(self, error: OSError) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(f"the socket is broken: {error}")

    # The end.

    def send_eof(self) -> None:
        """Close the sending half of the connection; receiving goes on. Never raises."""
        if not self._closed:
            self._send_soon()
            with suppress(OSError):  # The peer has gone.
                self._socket.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the later close send a RST, so that the peer does not take the close for the end of a message."""
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self) -> None:
        """Close the stream, which sends a FIN (after ``reset_on_close`` a RST)."""
        self.close_now()

    def close_now(self) -> None:
        """Close at once, and discard ``unsent``. May be called again, and from handlers and listeners.

        Tasks that wait in ``receive_some`` or ``drained`` get ClosedResourceError, and the listener gets
        ``on_error``. A waiting ``drained`` is not affected if everything was sent.
        """
        if self._closed:
            return
        self._send_soon()
        self._closed = True
        self._readable = False
        self._parking = None  # The request holds this stream: a reference cycle.
        if self.unsent:
            self.unsent = b""
            self.send_error = trio.ClosedResourceError("closed while sending")
        elif self.send_error is not None:
            self.send_error.__traceback__ = None  # Its frames hold this stream: a reference cycle.
        self._reader.close(self._socket)
        for task in (self._receiver, self._sender):
            if task is not None:
                reschedule(task, WOKEN)
        self._receiver = self._sender = None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_error(trio.ClosedResourceError("the stream was closed"))
