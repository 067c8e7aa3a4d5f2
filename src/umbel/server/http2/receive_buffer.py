"""The receive buffer of an HTTP/2 request body, bounded by flow control.

Bytes that are taken from it are reported, so that the client may send as many more. It sends nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class ReceiveBuffer:
    """Received bytes that were not taken yet. The flow-control window of the client bounds them."""

    def __init__(self, taken: Callable[[int], None]) -> None:
        self._taken = taken
        self._data = bytearray()
        self._unacknowledged = 0
        self._changed: trio.Event | None = None
        self.received = 0
        """Bytes that came, in all."""
        self.complete = False
        """Whether the last byte has come."""
        self.gone = False
        """Whether no more will come, and nobody waits for a response."""

    def put(self, data: bytes, flow_controlled: int) -> None:
        """Bytes came; with their padding they took ``flow_controlled`` bytes of the windows."""
        if self.gone:
            self._taken(flow_controlled)
            return
        self.received += len(data)
        self._data += data
        self._unacknowledged += flow_controlled
        self._note_change()

    def end(self) -> None:
        """All has come."""
        self.complete = True
        self._note_change()

    def leave(self) -> None:
        """What was not read will never be: the client has gone, or has its response."""
        self.gone = True
        self._data.clear()
        self._acknowledge()
        self._note_change()

    @property
    def exhausted(self) -> bool:
        """Whether all has come and was taken."""
        return self.complete and not self._data

    @property
    def awaited(self) -> bool:
        """Whether ``take`` would have to wait for the client."""
        return not (self._data or self.complete or self.gone)

    async def changed(self) -> None:
        """Wait until there are bytes, or the last has come, or nobody is there any more."""
        while not (self._data or self.gone or self.complete):
            await self._next_change().wait()

    async def completed(self) -> None:
        """Wait until the last byte has come, or nobody is there any more; what came stays."""
        while not (self.complete or self.gone):
            await self._next_change().wait()

    def take(self) -> bytes:
        """All that is there; the client may send as much again."""
        data = bytes(self._data)
        self._data.clear()
        self._acknowledge()
        return data

    def _next_change(self) -> trio.Event:
        """Several may wait: for the body, for its end, and tasks of one application side by side."""
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
