"""One accepted connection from its first byte to its end, whatever it speaks.

Called for each socket, and by the guard in the place of Hypercorn's ``TCPServer.run``. Every exception of a
connection ends here.
"""

from __future__ import annotations

import socket
import ssl

import trio

from .handoff import Handoff, hand_over
from .http1 import serve_http1
from .peer import Peer
from .plain import PlainConnection
from .probeconnection import serve_probe
from .reserve import Seat
from .service import Service
from .wire import AnyStream, PlainWire, TlsWire

__all__ = ["AnyStream", "serve_connection", "serve_socket", "take"]


def take(service: Service, sock: socket.socket, context: ssl.SSLContext | None, nursery: trio.Nursery) -> None:
    """Serve an accepted, non-blocking socket: by the crew if it is plain and not one too many, else in a task."""
    if context is not None or not service.crew.works or not service.connection_began():
        nursery.start_soon(serve_socket, service, sock, context)
        return
    try:
        PlainConnection(service, sock, _peer_of(sock, secure=False))
    except OSError:
        # The client has gone already.
        service.connection_ended()
        sock.close()


async def serve_socket(service: Service, sock: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve an accepted, non-blocking socket to its end and close it; with ``context`` it speaks TLS.

    Never raises an ``Exception``: one that came up is logged once, with its class and its location. A cancel passes.
    """
    if context is None:
        await _isolate(service, sock, None)
    else:
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await _isolate(service, sock, trio.SSLStream(transport, context, server_side=True, https_compatible=True))


async def serve_connection(service: Service, stream: AnyStream) -> None:
    """Serve a stream of trio's in the same way. A TLS one has not shaken hands yet."""
    if isinstance(stream, trio.SSLStream):
        await _isolate(service, stream.transport_stream.socket, stream)
    else:
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        await _isolate(service, sock, None)


AnySocket = socket.socket | trio.socket.SocketType


async def _isolate(service: Service, sock: AnySocket, tls: trio.SSLStream[trio.SocketStream] | None) -> None:
    """Count the connection, and be the end of whatever it raises."""
    counted = service.connection_began()
    try:
        peer = _peer_of(sock, secure=tls is not None)
        if counted:
            await _serve(service, sock, tls, peer)
        else:
            with service.reserve.seat() as seat:
                if seat is not None:
                    with seat.scope:
                        await _serve(service, sock, tls, peer, seat)
    except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
        if (rest := service.connection_failed(error)) is not None:
            raise rest from None
    finally:
        if counted:
            service.connection_ended()
        if tls is not None:
            await trio.aclose_forcefully(tls)
        sock.close()


async def _serve(
    service: Service,
    sock: AnySocket,
    tls: trio.SSLStream[trio.SocketStream] | None,
    peer: Peer,
    seat: Seat | None = None,
) -> None:
    """Serve a connection to its end; with a ``seat`` it is beyond the cap, and only a probe is answered."""
    wire: PlainWire | TlsWire
    if tls is None:
        assert isinstance(sock, socket.socket)
        wire = PlainWire(sock)
    else:
        try:
            # The first head must come within ``head_timeout`` of the accept, so a handshake may not take longer.
            with trio.fail_after(min(service.config.ssl_handshake_timeout, service.limits.head_timeout)):
                await tls.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError):
            return  # A port scan, a plain request, a client that trusts us not: none of them a fault of ours.
        if tls.selected_alpn_protocol() == "h2":
            await hand_over(service, tls, peer, Handoff("h2", b""), seat)
            return
        wire = TlsWire(tls)
    try:
        served = serve_http1(service, wire, peer) if seat is None else serve_probe(service, wire, peer, seat)
        if (handoff := await served) is not None:
            await hand_over(service, wire.stream(), peer, handoff, seat)
    finally:
        await wire.aclose()


def _peer_of(sock: AnySocket, *, secure: bool) -> Peer:
    """Both ends of the connection.

    Raises:
        OSError: the client has gone already.
    """
    own, theirs = sock.getsockname(), sock.getpeername()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return Peer((theirs[0], theirs[1]), (own[0], own[1]), secure, trio.current_time())
    return Peer(None, (own, None) if isinstance(own, str) else None, secure, trio.current_time())
