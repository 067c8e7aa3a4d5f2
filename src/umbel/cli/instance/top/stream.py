"""The client of an admin side's live data: server-sent events over the Unix socket, and the keys of the terminal.

The request is HTTP/1.0, so that the response has no chunks: it is the events until the end.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import trio

from ....admin.listeners import connected

Samples = dict[str, Any]
"""The latest sample of each topic."""
CONNECT_S = 5.0
SILENT_S = 30.0
"""Seconds without a byte after which the instance counts as gone; it sends a comment every ten seconds."""
_FIRST_S = 10.0
"""Seconds in which each topic must have sent its first samples."""
_BLOCK_BYTES_MAX = 64 * 2**20
_RATES = ("routes", "upstreams")
"""Topics whose first sample has no rates, which are differences of two."""


class StreamEndedError(Exception):
    """The instance has ended, refuses, or is silent. The text says which."""


async def events(path: str, topics: Sequence[str]) -> AsyncGenerator[tuple[str, Any], None]:
    """Yield the name and the data of each event.

    Raises:
        OSError: no instance listens at ``path``.
        StreamEndedError: the instance has ended, refuses, or is silent for ``SILENT_S``.
    """
    target = "/events?" + "&".join(f"topic={topic}" for topic in topics)
    with connected(path, CONNECT_S) as sock:
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await stream.send_all(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        async with aclosing(_blocks(stream)) as blocks:
            first = (await anext(blocks)).partition(b"\r\n")[0].decode("latin-1")
            if " 200 " not in first:
                raise StreamEndedError(f"the instance refuses the stream: {first}")
            async for block in blocks:
                name, _, data = block.partition(b"\ndata: ")
                if name.startswith(b"event: "):
                    yield name.removeprefix(b"event: ").decode(), msgspec.json.decode(data)


async def _blocks(stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    """Yield what stands between empty lines: the head of the response, then the events."""
    buffer = bytearray()
    end = b"\r\n\r\n"
    while True:
        while (at := buffer.find(end)) >= 0:
            yield bytes(buffer[:at])
            del buffer[: at + len(end)]
            end = b"\n\n"
        with trio.move_on_after(SILENT_S) as scope:
            piece = await stream.receive_some()
        if scope.cancelled_caught:
            raise StreamEndedError(f"it has been silent for {SILENT_S:g} s")
        if not piece:
            raise StreamEndedError("the instance has ended the stream")
        buffer += piece
        if len(buffer) > _BLOCK_BYTES_MAX:
            raise StreamEndedError("a sample is too large")


async def first_samples(path: str, topics: Sequence[str]) -> Samples:
    """Return a sample of each topic, with rates; those that come within 10 s.

    Raises:
        OSError, StreamEndedError: as ``events``, and if no topic has sent anything.
    """
    samples: Samples = {}
    counts = dict.fromkeys(topics, 0)
    with trio.move_on_after(_FIRST_S):
        async with aclosing(events(path, topics)) as received:
            async for name, data in received:
                if name in counts:
                    samples[name] = data
                    counts[name] += 1
                if all(count > (topic in _RATES) for topic, count in counts.items()):
                    break
    if not samples:
        raise StreamEndedError(f"it has sent nothing within {_FIRST_S:g} s")
    return samples


async def follow(path: str, topics: Sequence[str], draw: Callable[[Samples], object]) -> None:
    """Call ``draw`` after each sample of ``workers``, with the latest ones, until q is pressed, SIGINT or SIGTERM.

    Raises:
        OSError, StreamEndedError: as ``events``.
    """
    samples: Samples = {}

    async def receive() -> None:
        async with aclosing(events(path, topics)) as received:
            async for name, data in received:
                samples[name] = data
                if name == topics[0] or len(samples) == len(topics):
                    draw(samples)

    ended: StreamEndedError | OSError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_q, nursery.cancel_scope)
        nursery.start_soon(_until_signal, nursery.cancel_scope)
        try:
            await receive()
        except (StreamEndedError, OSError) as error:
            ended = error
        nursery.cancel_scope.cancel(reason="the instance has ended")
    if ended is not None:
        raise ended


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel(reason="a signal")


async def _until_q(scope: trio.CancelScope) -> None:
    """Cancel the scope when q is pressed on the terminal; wait for ever if stdin is none."""
    if not sys.stdin.isatty():
        return
    while True:
        await trio.lowlevel.wait_readable(sys.stdin.fileno())
        keys = os.read(sys.stdin.fileno(), 1024)
        if not keys or b"q" in keys.lower():
            scope.cancel(reason="q was pressed")
            return
