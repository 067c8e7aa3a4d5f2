"""Proxy cycle: one request for a proxy route that is answered before Quart, from its head to its access record."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ...core.errors import UpstreamError
from ...core.pieces import next_piece
from ..request_cycle import RequestCycle
from ..response.lasting import streaming
from ..response.reply import Reply, complete
from ..response.sending import send_whole
from .proxied_request import ProxiedRequest
from .tunnel import Tunnel
from .websocket_handshake import SWITCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.inbound import InboundRequest
    from ..context import GatewayContext
    from ..request.request_fields import Field
    from ..route_table import Match
    from .proxy_view import ProxyView


class ProxyCycle(RequestCycle):
    """One request for a proxy route, answered before Quart; see ``request_cycle.py`` and ``proxied_request.py``.

    A response that breaks off is aborted, so that the client sees an error. A WebSocket is passed on as a tunnel.
    """

    __slots__ = ("_route",)

    def __init__(self, context: GatewayContext, match: Match, route: ProxyView, inbound: InboundRequest) -> None:
        RequestCycle.__init__(self, context, match, route, inbound)
        if inbound.websocket:  # Over HTTP/2 it is a CONNECT (RFC 8441); the upstream gets a GET.
            self.facts = replace(self.facts, method="GET")
        self._route = route

    async def _answer(self) -> None:
        request = ProxiedRequest(self._route.rules, self, self._path, self.inbound.receive)
        self.inbound.take_any_size()
        try:
            try:
                reply = await request.begin()
            except (Exception, BaseExceptionGroup) as error:
                if (reply_to_error := self._reply_to(error)) is None:
                    raise
                reply = reply_to_error
            if reply is None:
                await self._pass_on(request)
            else:
                complete(reply, self, krakend=self._route.krakend_compat)
                assert type(reply.body) is bytes
                await send_whole(self, reply.status, reply.fields, reply.body)
        finally:
            await request.aclose()

    async def _pass_on(self, request: ProxiedRequest) -> None:
        """Send the response of the upstream, or tunnel its WebSocket."""
        status, fields = request.head()
        if status == SWITCHED:
            await self._tunnel(request, fields)
            return
        reply = Reply(status, fields, b"", named=True)
        complete(reply, self, krakend=False)
        if request.response.response_ended and not request.response.trailers:
            await send_whole(self, status, reply.fields, await request.receive())
            return
        with streaming(self):
            await self._stream(request, status, reply.fields)

    async def _stream(self, request: ProxiedRequest, status: int, fields: Sequence[Field]) -> None:
        """Send a response piece by piece: each piece that was received is sent before the next one is received."""
        inbound, response = self.inbound, request.response
        await inbound.start(status, fields, trailers=inbound.takes_trailers)
        await inbound.send(response.take_rest())  # The head goes out now, even if the body comes later.
        while data := await request.receive():
            at_once = await inbound.send(data)
            response.receive_max = next_piece(len(data), at_once=at_once)
        await inbound.finish(trailers=request.trailers)

    async def _tunnel(self, request: ProxiedRequest, fields: list[Field]) -> None:
        """Pass on the bytes of a WebSocket in both directions until its end."""
        inbound, handshake, runtime = self.inbound, request.handshake, self.serving.runtime
        assert handshake is not None and runtime is not None
        upstream = request.response.take()
        status, accepted = handshake.accepted(fields)
        complete(reply := Reply(status, accepted, b"", named=True), self, krakend=False)
        client = await inbound.take(reply.status, reply.fields)
        tunnel = Tunnel(client, upstream, runtime.timers)
        spread = self._context.config.server.drain_idle
        inbound.on_drain(lambda: tunnel.drain(random.uniform(0, spread)))  # spreads load, hides nothing
        inbound.on_gone(tunnel.client_gone)
        try:
            with streaming(self):
                await tunnel.run()
        finally:
            error = request.response.error or tunnel.error
            upstream.close_now()
            request.call.end(error)
        self.detail = self.detail or tunnel.end
        if isinstance(error, UpstreamError):  # A time limit of the call, or a broken connection.
            self.kind, self.detail = error.kind, error.detail
