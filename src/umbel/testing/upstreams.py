"""Scripted upstreams: HTTP/1.1 servers in memory, whose answers come from scripts and functions.

Theory
------
The gateway's pool dials, and gets one end of a connection in memory; a task serves the other end
(``upstream_connection.py``).

*Turns.* A turn of a script is taken when a request has arrived as a whole. A failure of connecting has no request, so
it is taken when the pool dials; the turns before it are left to the connections that have been made and whose first
request has not arrived. The pool dials only if it has no idle connection. So before such a turn an upstream closes its
connections: with ``Connection: close`` in the response before, or without an answer if a request comes on another kept
connection. The same holds before a reset, because the pool itself repeats a request whose kept connection is reset.

*The gateway closes a connection* when it has cancelled an attempt. The task that serves the connection is then
cancelled, wherever it waits, also within a function of the test.

*Errors of the test* (a function raises, an upstream has no script) must not become failures of an upstream, which a
gateway handles. They end the test: ``ScriptedUpstreams`` raises them in its nursery.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import trio

from ..net.memory_stream import MemoryReader, MemoryStream, memory_stream_pair
from ..upstream.errors import ConnectFailed, ConnectTimedOut, HandshakeFailed, NameFailed
from ..upstream.pool.dial import Dial
from ..upstream.replicas.origin import Origin
from .answers import Answers, Handler, UnscriptedRequestError, answers_of
from .received import UpstreamRequest
from .script import Failure
from .upstream_connection import UpstreamConnection


@dataclass(slots=True)
class _Upstream:
    """One upstream."""

    name: str
    answers: Answers
    received: deque[UpstreamRequest]
    """The requests that it got."""
    waiting: int = 0
    """Connections whose first request has not arrived."""


class ScriptedUpstreams:
    """The upstreams of a test. ``nursery`` serves their connections.

    Args:
        handlers: what answers, by name of the upstream.
        reader: watches the connections.
        nursery: its tasks serve connections, and raise errors of the test.
        received_max: how many requests of each upstream are kept; None: all.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        reader: MemoryReader,
        nursery: trio.Nursery,
        *,
        received_max: int | None = None,
    ) -> None:
        self._reader = reader
        self._nursery = nursery
        self._upstreams = {
            name: _Upstream(name, answers_of(name, handler), deque(maxlen=received_max))
            for name, handler in handlers.items()
        }

    def received(self, name: str) -> Sequence[UpstreamRequest]:
        """The requests that an upstream got, in the order of their arrival.

        Raises:
            KeyError: there is no scripted upstream of this name.
        """
        if name not in self._upstreams:
            raise KeyError(f"the test has no upstream {name!r}; it has {', '.join(self._upstreams) or 'none'}")
        return list(self._upstreams[name].received)

    def dial_for(self, name: str) -> Dial:
        """The function that connects to the upstream ``name``."""

        async def dial(origin: Origin, timeout: float | None) -> MemoryStream:
            await trio.lowlevel.checkpoint()
            upstream = self._upstreams.get(name)
            if upstream is None:
                text = f"the upstream {name!r} was called, and the test has no answer for it: name it in upstreams"
                await self._end_test(UnscriptedRequestError(text))
            if (refusal := upstream.answers.take_refusal(upstream.waiting)) is not None:
                await _refuse(*refusal, origin, math.inf if timeout is None else timeout)
            ours, theirs = memory_stream_pair(self._reader)
            upstream.waiting += 1
            self._nursery.start_soon(self._serve, upstream, origin, theirs, name=f"scripted upstream {name}")
            return ours

        return dial

    async def _end_test(self, error: Exception) -> NoReturn:
        """Raise ``error`` in the nursery, so that it ends the test; this task is cancelled."""
        self._nursery.start_soon(_raise, error)
        while True:
            await trio.sleep_forever()

    async def _serve(self, upstream: _Upstream, origin: Origin, stream: MemoryStream) -> None:
        """Serve one connection until it is closed. It counts as waiting until its first request."""
        answers, kept = upstream.answers, False
        try:
            with trio.CancelScope() as scope:
                stream.on_end = lambda _broken: scope.cancel(reason="the gateway has closed the connection")
                connection = UpstreamConnection(stream)
                while (request := await connection.next_request(upstream.name, origin)) is not None:
                    upstream.waiting -= not kept
                    began_kept, kept = kept, True
                    if answers.ends_connection(kept=began_kept):
                        stream.reset_on_close()
                        return
                    upstream.received.append(request)
                    turn = answers.take(request)
                    await trio.sleep(turn.pause)
                    await connection.answer(turn.answer, request, answers.ends_connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The gateway has closed the connection.
        finally:
            upstream.waiting -= not kept
            stream.close()


async def _raise(error: Exception) -> None:
    raise error


async def _refuse(pause: float, failure: Failure, origin: Origin, timeout: float) -> NoReturn:
    """Fail to connect, after ``pause`` seconds or when the timeout passes.

    Raises:
        UpstreamError: of the kind of the failure.
    """
    where = origin.where
    if failure.name == "connect-timeout" or pause >= timeout:
        await trio.sleep(timeout)
        raise ConnectTimedOut(f"{where}: the connect timeout has passed")
    await trio.sleep(pause)
    if failure.name == "dns":
        raise NameFailed(f"the name {origin.host} has no address")
    if failure.name == "tls":
        raise HandshakeFailed(f"{where}: the TLS handshake failed")
    raise ConnectFailed(f"cannot connect to {where}: connection refused")
