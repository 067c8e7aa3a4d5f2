"""Dialling: name resolution, connect and TLS handshake to one origin, within one time limit.

If the limit passes, the type of the error names the step that had not ended: NameTimedOut, ConnectTimedOut or
TlsTimedOut.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from ...core.errors import NotRunningError, UpstreamError
from ...core.model import DialTimes
from ...net.epoll import Reader
from ...net.stream import PlainStream, Stream
from ...net.tls_stream import TlsStream
from ..errors import ConnectTimedOut, NameTimedOut, TlsFailed, TlsTimedOut, connect_failed, handshake_failed, tls_failed
from ..replicas.address import connect, resolve
from ..replicas.origin import Origin
from .tls import client_context
from .tls_session_cache import TlsSessionCache

Dial = Callable[[Origin, float | None], Awaitable[Stream]]
"""Function that connects to an origin within a limit in seconds (None: no limit) and returns a stream."""


class Dialer:
    """A ``Dial`` over sockets: TCP or Unix, with TLS for https origins.

    It keeps the TLS session of each origin. If a handshake with a kept session fails, it connects once more without.

    Args:
        ssl_context: TLS settings; None: ``client_context()``, made for the first https origin.
        public_only: refuse addresses that are not public.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, public_only: bool = False) -> None:
        self.reader: Reader | None = None
        """Watches the sockets; set by the pool while it is entered, else None."""
        self._ssl_context = ssl_context
        self._public_only = public_only
        self._sessions = TlsSessionCache()

    async def __call__(self, origin: Origin, timeout: float | None, times: DialTimes | None = None) -> Stream:
        """Connect to ``origin`` and return the stream. Failed or cancelled, it leaves no socket open.

        Args:
            timeout: seconds for all steps together; None: no limit.
            times: gets the time at which each step ends.

        Raises:
            UpstreamError: of kind dns, connect or tls; also after ``timeout``.
            NotRunningError: the pool was closed before there was a socket.
        """
        attempt = _DialProgress(origin, times or DialTimes(0.0))
        with trio.move_on_after(math.inf if timeout is None else timeout):
            return await self._dial(origin, attempt)
        raise attempt.timed_out()

    async def _dial(self, origin: Origin, attempt: _DialProgress) -> Stream:
        if origin.uds is not None:
            attempt.stage = ConnectTimedOut
            stream = await _connect_unix(origin.uds)
        else:
            addresses = await resolve(origin.host, origin.port, public_only=self._public_only)
            attempt.times.resolved_at = trio.current_time()
            attempt.stage = ConnectTimedOut
            stream = await connect(addresses)
        if origin.scheme != "https":
            sock = _detach_socket(stream)
            try:
                return PlainStream(sock, self._running_reader())
            except BaseException:
                sock.close()
                raise
        attempt.times.connected_at = trio.current_time()
        attempt.stage = TlsTimedOut
        if self._ssl_context is None:
            self._ssl_context = client_context()
        try:
            return await self._start_tls(stream, self._ssl_context, origin)
        except TlsFailed:
            # A server behind the same name, or a middlebox, may fail on a resumed session. Once more without it.
            if not self._sessions.forget(origin):
                raise
        return await self._start_tls(await connect(addresses), self._ssl_context, origin)

    def _running_reader(self) -> Reader:
        if self.reader is None:
            raise NotRunningError("the pool was closed while this connection was made")
        return self.reader

    async def _start_tls(self, stream: trio.SocketStream, context: ssl.SSLContext, origin: Origin) -> TlsStream:
        name = (origin.sni or origin.host).rstrip(".")
        sessions = self._sessions
        sock = _detach_socket(stream)
        try:
            secured = TlsStream(
                sock,
                self._running_reader(),
                context,
                name,
                session=sessions.get(origin, trio.current_time()),
                keep_session=lambda last: sessions.keep(origin, last, trio.current_time()),
            )
        except BaseException as error:
            sock.close()
            if isinstance(error, ValueError):
                raise tls_failed(error, origin.where) from error
            raise
        try:
            await secured.handshake()
        except trio.BrokenResourceError as error:
            secured.close_now()
            raise handshake_failed(error.__cause__, origin.where) from error
        except BaseException:
            secured.close_now()
            raise
        return secured


class _DialProgress:
    """The step that dialling an origin has reached."""

    def __init__(self, origin: Origin, times: DialTimes) -> None:
        self._where = origin.where
        self.times = times
        self.stage: type[NameTimedOut | ConnectTimedOut | TlsTimedOut] = NameTimedOut

    def timed_out(self) -> UpstreamError:
        return self.stage(f"{self._where}: the connect timeout has passed")


async def _connect_unix(path: str) -> trio.SocketStream:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.connect(path)
        return trio.SocketStream(sock)
    except OSError as error:
        sock.close()
        raise connect_failed(error, f"unix:{path}") from error
    except BaseException:
        sock.close()
        raise


def _detach_socket(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of a trio stream, which must not be used afterwards."""
    return socket.socket(fileno=stream.socket.detach())
