"""A plain connection without a task of its own: the crew gives it a turn when something has come.

Made by ``connection.py`` for each plain socket that our own loop accepts. What a turn does is ``http1.py``'s affair;
here are the socket's readiness, and the end of every exception.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from .crew import LEFT, READABLE, RESET
from .handoff import Handoff, hand_over
from .http1 import Http1Connection
from .wire import RECEIVE_MAX, PlainWire

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

    def about_to_wait(self) -> None:
        """See ``Http1Connection``."""
        self._http.about_to_wait()

    def abandon(self) -> None:
        """Close at once."""
        self._close()

    async def turn(self, scope: trio.CancelScope) -> bool:
        """Read and serve until there is nothing more to read, or the end. Raises no ``Exception``."""
        http, over = self._http, True
        http.scope = scope
        try:
            over = await self._read_and_serve()
        except BaseException as error:
            if self._service.connection_failed(error) is not None:
                raise
        finally:
            self._busy = False
            if over:
                self._close()
        return http.cancelled

    async def _read_and_serve(self) -> bool:
        """Whether the connection is over."""
        http, wire = self._http, self._wire
        while self._readable:
            data = wire.receive_now()
            if not http.half_closed and (data is None or 0 < len(data) < RECEIVE_MAX):
                self._readable = False
            if data is None:
                return False
            if not data:
                return True
            http.buffer = http.buffer + data if http.buffer else data
            more = await http.advance()
            if more is not True:
                if isinstance(more, Handoff):
                    http.forget()
                    await hand_over(self._service, wire.stream(), self._peer, more)
                else:
                    await http.part()
                return True
        return False

    def _late(self) -> None:
        """The client has sent nothing for as long as it may."""
        if self._busy:
            return  # It has sent something just now.
        if self._http.buffer:
            self._busy = True
            self._service.crew.start(self._give_up)
        else:
            self._close()

    async def _give_up(self) -> None:
        try:
            await self._http.give_up()
        except BaseException as error:
            if self._service.connection_failed(error) is not None:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        self._service.crew.members.discard(self)
        self._http.forget()
        self._wire.close()
        self._service.connection_ended()
