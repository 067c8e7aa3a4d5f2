"""Receive buffer of an HTTP/2 request body, bounded by the flow-control window."""

from __future__ import annotations

from collections.abc import Callable

import trio


class ReceiveBuffer:
    """Received bytes of one body that were not taken yet.

    ``taken(amount)`` is called for bytes that were taken or dropped: the window may open by ``amount``.
    """

    def __init__(self, taken: Callable[[int], None]) -> None:
        self._taken = taken
        self._data = bytearray()
        self._unacknowledged = 0
        self._changed: trio.Event | None = None
        self.received = 0
        """Bytes of content that were received in all."""
        self.complete = False
        """Whether the last byte was received."""
        self.gone = False
        """Whether ``leave`` was called: bytes that still come are dropped."""

    def put(self, data: bytes, flow_controlled: int) -> None:
        """Add received bytes; ``flow_controlled``: their size with padding, as the windows count."""
        if self.gone:
            self._taken(flow_controlled)
            return
        self.received += len(data)
        self._data += data
        self._unacknowledged += flow_controlled
        self._note_change()

    def end(self) -> None:
        """Note that the body is complete."""
        self.complete = True
        self._note_change()

    def leave(self) -> None:
        """Drop all bytes, now and later, because nobody will take them. Wakes the tasks that wait."""
        self.gone = True
        self._data.clear()
        self._acknowledge()
        self._note_change()

    @property
    def exhausted(self) -> bool:
        """Whether the body is complete and all of it was taken."""
        return self.complete and not self._data

    @property
    def awaited(self) -> bool:
        """Whether the next bytes have to be waited for (``changed``): there are none, and the body has not ended."""
        return not (self._data or self.complete or self.gone)

    async def changed(self) -> None:
        """Wait until there are bytes to take, the body is complete, or ``leave`` was called. A cancel loses nothing."""
        while not (self._data or self.gone or self.complete):
            await self._next_change().wait()

    async def completed(self) -> None:
        """Wait until the body is complete or ``leave`` was called. Takes nothing."""
        while not (self.complete or self.gone):
            await self._next_change().wait()

    def take(self) -> bytes:
        """Take all bytes that are there, without waiting, and let the window open by as much."""
        data = bytes(self._data)
        self._data.clear()
        self._acknowledge()
        return data

    def _next_change(self) -> trio.Event:
        """The event of the next change, which several tasks may wait for."""
        if self._changed is None or self._changed.is_set():
            self._changed = trio.Event()
        return self._changed

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _acknowledge(self) -> None:
        amount, self._unacknowledged = self._unacknowledged, 0
        if amount:
            self._taken(amount)
