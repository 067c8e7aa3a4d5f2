"""One accepted connection from its first byte to its close: TLS handshake, choice of protocol, HTTP/1.1 or HTTP/2."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import replace

import trio

from ..net.stream import PlainStream
from ..net.tls_stream import TlsStream
from .http1.connection import serve_http1
from .http1.probe import serve_probe
from .http2.connection import Http2Connection
from .limits.probe_reserve import ReservedConnection
from .peer import Peer
from .state import ServerState

__all__ = ["serve_socket", "serve_stream"]


async def serve_socket(server: ServerState, sock: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve an accepted, non-blocking socket, and close it; see ``serve_stream``. ``context``: None: without TLS."""

    def connect() -> tuple[PlainStream, Peer]:
        try:
            peer, reader = _peer_of(sock, secure=context is not None), server.reader
            return PlainStream(sock, reader) if context is None else TlsStream.serving(sock, reader, context), peer
        except BaseException:
            sock.close()
            raise

    await serve_stream(server, connect)


async def serve_stream(server: ServerState, connect: Callable[[], tuple[PlainStream, Peer]]) -> None:
    """Serve the connection that ``connect`` returns, and close it.

    A connection beyond ``max_connections`` is served on the reserve for probes, or closed if the reserve is full. An
    ``Exception``, also of ``connect``, is not raised: it is logged once with its class and location, unless it only
    says that the client has gone. A cancel closes the connection and is raised again.
    """
    counted = server.connection_began()
    stream: PlainStream | None = None
    try:
        stream, peer = connect()
        if counted:
            await _serve(server, stream, peer)
        else:
            with server.reserve.connection() as reserved:
                if reserved is not None:
                    with reserved.scope:
                        await _serve(server, stream, peer, reserved)
        stream.close()
    except BaseException as error:  # noqa: BLE001 - cancels and the like are raised again
        if (rest := server.connection_failed(error)) is not None:
            raise rest from None
    finally:
        if counted:
            server.connection_ended()
        if stream is not None:
            stream.close_now()


async def _serve(
    server: ServerState, stream: PlainStream, peer: Peer, reserved: ReservedConnection | None = None
) -> None:
    """Serve a connection without closing it. ``reserved``: set beyond ``max_connections``, where a probe is served."""
    if isinstance(stream, TlsStream):
        # head_timeout of the first head begins with the accept, so a longer handshake would be of no use.
        seconds = min(server.config.ssl_handshake_timeout, server.limits.head_timeout)
        with trio.move_on_after(seconds) as scope:
            try:
                await stream.handshake()
            except trio.BrokenResourceError:
                # A port scan, a request without TLS, or a client that rejects the certificate. Not logged: any client
                # can cause it.
                return
        if scope.cancelled_caught:
            return
        peer = replace(peer, client_certificate=stream.client_certificate)
        if stream.alpn == "h2":
            await Http2Connection(server, stream, peer, reserved).run(b"")
            return
    served = serve_http1(server, stream, peer) if reserved is None else serve_probe(server, stream, peer, reserved)
    if (switch := await served) is not None:
        await Http2Connection(server, stream, peer, reserved).run(switch.received)


def _peer_of(sock: socket.socket, *, secure: bool) -> Peer:
    """The peer of a socket that was accepted just now.

    Raises:
        OSError: the client has gone already.
    """
    own, theirs = sock.getsockname(), sock.getpeername()
    now = trio.current_time()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return Peer((theirs[0], theirs[1]), (own[0], own[1]), secure, accepted_at=now)
    return Peer(None, (own, None) if isinstance(own, str) else None, secure, accepted_at=now)
