"""A plain connection without a task of its own: the crew gives it a turn when something has come.

Made for each plain socket that our own loop accepts. What a turn does is ``http1.py``'s affair; here are the socket's
readiness, and the end of every exception.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from .crew import LEFT, READABLE, RESET
from .handoff import Handoff, hand_over
from .http1 import Http1Connection
from .wire import READ_NOW_MAX, PlainWire

if TYPE_CHECKING:
    from .peer import Peer
    from .service import Service


class PlainConnection:
    """One connection; it counts as one of the service's until it is closed."""

    def __init__(self, service: Service, sock: socket.socket, peer: Peer) -> None:
        self._service = service
        self._peer = peer
        self._wire = PlainWire(sock)
        self._http = Http1Connection(service, self._wire, peer, self._late)
        self._readable = False
        """Whether there may be something to read. The kernel tells only of changes."""
        self._busy = False
        """Whether it has a turn or waits for one."""
        service.crew.members.add(self)
        service.crew.watch(self._wire.fd, self._changed, READABLE | LEFT)

    def _changed(self, flags: int) -> None:
        self._readable = True
        if flags & (LEFT | RESET):
            self._http.changed(flags)
        if not self._busy:
            self._busy = True
            self._service.crew.turns.append(self)

    def abandon(self) -> None:
        """Close at once."""
        self._close()

    async def turn(self, scope: trio.CancelScope) -> bool:
        """Read and serve until there is nothing more to read, or the end. Raises no ``Exception``."""
        http, wire, over = self._http, self._wire, True
        http.scope = scope
        try:
            more: Handoff | bool = True
            while more is True and self._readable:
                data = wire.receive_now()
                if (data is None or 0 < len(data) < READ_NOW_MAX) and not http.half_closed:
                    self._readable = False
                if data:
                    http.buffer = http.buffer + data if http.buffer else data
                    more = await http.advance()
                elif data is not None:
                    more = False
            if more is True and http.is_late:
                await http.give_up()
                more = False
            over = more is not True
            if isinstance(more, Handoff):
                http.forget()
                await hand_over(self._service, wire.stream(), self._peer, more)
            elif over:
                await http.part()
        except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
            if (rest := self._service.connection_failed(error)) is not None:
                raise rest from None
        finally:
            self._busy = False
            if over:
                self._close()
        return http.cancelled

    def _late(self) -> None:
        """The client has not sent what it must for as long as it may; but perhaps it is we who have not looked."""
        if not self._busy:
            self._busy = self._readable = True
            self._service.crew.start(self._last_turn)

    async def _last_turn(self) -> None:
        with trio.CancelScope() as scope:
            await self.turn(scope)

    def _close(self) -> None:
        self._service.crew.members.discard(self)
        self._http.forget()
        self._wire.close()
        self._service.connection_ended()
