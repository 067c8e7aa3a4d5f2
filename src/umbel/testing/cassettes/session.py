"""Gateways that serve while a cassette is recorded, or from a cassette."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...core.console import announce
from ...gateway.app import Umbel
from ...net.memory_stream import MemoryReader
from ...server.serving import serve
from ...upstream.network import Network
from ..upstreams import ScriptedUpstreams
from .exchange import Exchange, Header
from .record import Tape, recorded_network
from .replay import RecordedAnswers

if TYPE_CHECKING:
    from hypercorn.config import Config


async def serve_recorded(app: Umbel, settings: Config, tape: Tape) -> None:
    """Serve ``app`` until a signal, with its real upstreams, and record what they answer on ``tape``.

    Raises:
        OSError: the cassette cannot be written; what ``serve`` raises.
    """
    async with trio.open_nursery() as writing:
        writing.start_soon(tape.run)
        async with recorded_network(app.gateway_config, tape) as network:
            app.given_network = network
            await _serve(app, settings)
        tape.close()


async def serve_replayed(app: Umbel, settings: Config, header: Header, exchanges: Sequence[Exchange]) -> None:
    """Serve ``app`` until a signal, with upstreams that answer from a cassette; see ``replay.py``.

    Raises:
        CassetteError: an exchange cannot be replayed.
    """
    answers = {
        name: RecordedAnswers(name, header, [each for each in exchanges if each.upstream == name], strict=False)
        for name in app.gateway_config.upstreams
    }
    async with trio.open_nursery() as replaying:
        reader = MemoryReader()
        upstreams = ScriptedUpstreams(answers, reader, replaying, received_max=0)
        app.given_network = Network(reader, upstreams.dial_for, lambda _: random.Random())
        await _serve(app, settings)
        replaying.cancel_scope.cancel(reason="the gateway has stopped")


async def _serve(app: Umbel, settings: Config) -> None:
    async with trio.open_nursery() as nursery:
        announce(await nursery.start(partial(serve, app, settings)), app.recorder)
