"""Sends inputs to a server and holds it to what it promises whatever comes.

It lives; another client is served; the connection ends; what was answered is well formed; nothing crashed, and the log
has at most one line for each connection.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import h11
import trio
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import Frame

from tests.fuzz import adversarial, http1, http2
from tests.fuzz.corpus import PROTOCOLS, stored
from tests.support.process.launched_workers import Launched
from tests.support.server.raw_client import heard
from tests.support.server.serving import fetch

END_S_MAX = 10.0
"""A connection whose client has said its last word ends well within it: the limits below are far shorter."""
LIMITS = 'head_timeout = "500ms"\nbody_timeout = "500ms"\nwrite_timeout = "1s"'
SETTINGS = "keep_alive_timeout = 1\n"
AT_ONCE = 10
EVERY = 50
"""Inputs between two looks at the server as a whole."""

CPU_S_MAX = 0.5
"""Of the worker, for one input that is made to cost. A MB of JSON may take a tenth of a second to read."""
KINDS = (*PROTOCOLS, "adversarial")
"""What inputs are made: mutations of a protocol's corpus, and requests of HTTP/1.1 that are made to cost."""

MAKERS: dict[str, Callable[[Sequence[bytes], Random], bytes]] = {"http1": http1.mutated, "http2": http2.mutated}


@dataclass(frozen=True, slots=True)
class Input:
    """What one connection sends: pieces, each a packet, and how it ends."""

    protocol: str
    data: bytes
    cuts: tuple[int, ...] = ()
    ending: str = "half-close"
    costs: bool = False
    """Whether it comes alone, and the worker's CPU time is looked at."""

    @classmethod
    def made(cls, protocol: str, rng: Random) -> Input:
        """A new one of a kind."""
        if protocol == "adversarial":
            return cls("http1", adversarial.made(rng), costs=True)
        data = MAKERS[protocol](list(stored(protocol).values()), rng)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
        return cls(
            protocol, data, tuple(cuts), rng.choice(("half-close", "half-close", "half-close", "close", "reset"))
        )

    @property
    def pieces(self) -> list[bytes]:
        places = [0, *self.cuts, len(self.data)]
        return [self.data[a:b] for a, b in pairwise(places) if b > a]


class Finding(AssertionError):  # noqa: N818 - what a fuzzer calls it
    """An input after which a promise was not kept."""

    def __init__(self, what: str, inputs: Sequence[Input]) -> None:
        super().__init__(f"{what}, after {[(i.protocol, i.ending, i.cuts, i.data[:300]) for i in inputs[:3]]}")
        self.inputs = inputs


async def try_one(port: int, given: Input) -> None:
    """One connection, from its first byte to its end.

    Raises:
        Finding: it did not end, or what came back is not well formed.
    """
    received = b""
    try:
        with trio.fail_after(END_S_MAX):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(_send, stream, given)
                try:
                    while data := await stream.receive_some():
                        received += data
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel(reason="the server has closed")
    except trio.TooSlowError as error:
        raise Finding(f"the connection did not end; so far: {received[:200]!r}", [given]) from error
    try:
        _check(given, received)
    except (h11.RemoteProtocolError, HyperframeError, AssertionError) as error:
        raise Finding(f"not well formed: {error}: {received[:300]!r}", [given]) from error


async def _send(stream: trio.SocketStream, given: Input) -> None:
    try:
        for piece in given.pieces:
            await stream.send_all(piece)
            await trio.lowlevel.checkpoint()
        if given.ending == "half-close":
            await stream.send_eof()
            return
        if given.ending == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # The server has heard enough.


def _check(given: Input, received: bytes) -> None:
    # An input of the one protocol may have become one of the other, so what came says what it is.
    if not received.startswith(b"HTTP/1."):
        while len(received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(received[:9]))
            if len(received) < 9 + length:
                break
            frame.parse_body(memoryview(received[9 : 9 + length]))
            received = received[9 + length :]
        assert given.ending != "half-close" or not received, "half a frame"
    else:
        patient = given.ending == "half-close"
        result = heard(received, to_the_end=patient)
        upgraded = received.startswith(b"HTTP/1.1 101 ")
        assert not patient or upgraded or not result.rest, "half an answer"


async def try_all(server: Launched, inputs: Sequence[Input]) -> None:
    """Several connections at once, and then a look at the server.

    Raises:
        Finding: a promise was not kept by one of them or by the server.
    """
    found: list[Finding] = []
    lines = len(server.complaints())
    said = len(server.output)

    async def one(given: Input) -> None:
        try:
            async with limit:
                before = server.cpu_seconds()
                await try_one(server.port, given)
                spent = server.cpu_seconds() - before
                if given.costs and spent > CPU_S_MAX:
                    raise Finding(f"the worker was busy for {spent:.2f} s", [given])
        except Finding as finding:
            found.append(finding)

    limit = trio.CapacityLimiter(1 if any(given.costs for given in inputs) else AT_ONCE)
    async with trio.open_nursery() as nursery:
        for given in inputs:
            nursery.start_soon(one, given)
    if found:
        raise found[0]
    if not server.lives:
        raise Finding(f"the worker has ended: {server.output[-2000:]}", inputs)
    status = 0
    with trio.move_on_after(END_S_MAX):
        # While requests of the inputs are still at work, to be shed is as it should be.
        while (status := (await fetch(server.port, "GET", "/livez", [("connection", "close")])).status) == 503:
            await trio.lowlevel.checkpoint()
    if status != 200:
        raise Finding(f"another client was not served but with {status or 'nothing'}", inputs)
    if "Traceback" in server.output[said:]:
        raise Finding(f"a traceback: {server.output[said:][:2000]}", inputs)
    # A line may come a moment later, when others are asked already; so they are counted over the server's whole life.
    server.connections_broken += len(inputs)
    if len(server.complaints()) > server.connections_broken:
        raise Finding(f"over one line in the log for each connection: {server.records('app')[-3:]}", inputs)
    crashes = [line for line in server.records("app", skip=lines) if line["event"].endswith("crashed")]
    if crashes:
        raise Finding(f"a crash: {crashes[0]}", inputs)


async def narrowed(server: Launched, finding: Finding) -> Finding:
    """Find the one input among many, if it does it again alone."""
    for given in finding.inputs:
        try:
            await try_all(server, [given])
        except Finding as alone:
            return alone
    return finding


async def fuzz(
    server: Launched, protocol: str, seed: int, count: int, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Send ``count`` inputs that follow from ``seed``.

    Raises:
        Finding: with the input, or as near to it as could be found out.
    """
    rng = Random(f"{protocol} {seed}")
    for done in range(0, count, EVERY):
        inputs = [Input.made(protocol, rng) for _ in range(min(EVERY, count - done))]
        try:
            await try_all(server, inputs)
        except Finding as finding:
            raise (await narrowed(server, finding) if server.lives else finding) from None
        progress(done + len(inputs))
