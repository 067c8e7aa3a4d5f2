"""Sends inputs to a server process and checks the invariants that hold for any input.

- The worker stays alive and serves another client.
- The connection ends within END_S_MAX, and the bytes that the server sent are well-formed.
- No crash and no traceback is recorded, and the app stream has at most one warning per connection.
- The worker spends at most CPU_S_MAX on an adversarial input.
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
from tests.support.server.raw_client import parse_responses
from tests.support.server.serving import fetch

END_S_MAX = 10.0
"""The seconds within which a connection must end. The timeouts in LIMITS are far shorter."""
LIMITS = 'head_timeout = "500ms"\nbody_timeout = "500ms"\nwrite_timeout = "1s"'
SETTINGS = "keep_alive_timeout = 1\n"
AT_ONCE = 10
"""Concurrent connections."""
EVERY = 50
"""Inputs between two checks of the server as a whole."""

CPU_S_MAX = 0.5
"""The worker's CPU seconds for one adversarial input; 1 MB of JSON may take 0.1 s to parse."""
KINDS = (*PROTOCOLS, "adversarial")
"""The kinds of inputs: mutations of the corpus of a protocol, and HTTP/1.1 requests that are expensive to parse."""

MAKERS: dict[str, Callable[[Sequence[bytes], Random], bytes]] = {"http1": http1.mutated, "http2": http2.mutated}


@dataclass(frozen=True, slots=True)
class Input:
    """The bytes that one connection sends, cut into segments, and how the client ends the connection."""

    protocol: str
    data: bytes
    cuts: tuple[int, ...] = ()
    ending: str = "half-close"
    costs: bool = False
    """Whether the input is sent alone, and the worker's CPU time for it is limited."""

    @classmethod
    def made(cls, protocol: str, rng: Random) -> Input:
        """Make a random input of one of KINDS."""
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


class Finding(AssertionError):  # noqa: N818 - the usual term of fuzzers
    """A broken invariant, and the inputs before it."""

    def __init__(self, what: str, inputs: Sequence[Input]) -> None:
        super().__init__(f"{what}, after {[(i.protocol, i.ending, i.cuts, i.data[:300]) for i in inputs[:3]]}")
        self.inputs = inputs


async def try_one(port: int, given: Input) -> None:
    """Send one input on a connection, and read until the connection ends.

    Raises:
        Finding: the connection did not end, or the received bytes are not well-formed.
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
        raise Finding(f"the connection did not end; received so far: {received[:200]!r}", [given]) from error
    try:
        _check(given, received)
    except (h11.RemoteProtocolError, HyperframeError, AssertionError) as error:
        raise Finding(f"the response is not well-formed: {error}: {received[:300]!r}", [given]) from error


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
        pass  # The server has closed the connection before the last piece.


def _check(given: Input, received: bytes) -> None:
    # A mutation may turn an input into one of the other protocol, so the received bytes decide which parser is used.
    if not received.startswith(b"HTTP/1."):
        while len(received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(received[:9]))
            if len(received) < 9 + length:
                break
            frame.parse_body(memoryview(received[9 : 9 + length]))
            received = received[9 + length :]
        assert given.ending != "half-close" or not received, "an incomplete frame"
    else:
        patient = given.ending == "half-close"
        result = parse_responses(received, to_the_end=patient)
        upgraded = received.startswith(b"HTTP/1.1 101 ")
        assert not patient or upgraded or not result.rest, "an incomplete response"


async def try_all(server: Launched, inputs: Sequence[Input]) -> None:
    """Send inputs on concurrent connections, then check the server.

    Raises:
        Finding: an invariant is broken.
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
        raise Finding(f"the worker has ended; its output: {server.output[-2000:]}", inputs)
    status = 0
    with trio.move_on_after(END_S_MAX):
        # While requests of the inputs are in flight, a 503 of load shedding is correct.
        while (status := (await fetch(server.port, "GET", "/livez", [("connection", "close")])).status) == 503:
            await trio.lowlevel.checkpoint()
    if status != 200:
        raise Finding(f"another client got {status or 'no response'} instead of 200", inputs)
    if "Traceback" in server.output[said:]:
        raise Finding(f"a traceback: {server.output[said:][:2000]}", inputs)
    # A record may be written a little later, among those of the next inputs. So the count is over all inputs so far.
    server.connections_broken += len(inputs)
    if len(server.complaints()) > server.connections_broken:
        raise Finding(f"more than one warning per connection in the app stream: {server.records('app')[-3:]}", inputs)
    crashes = [line for line in server.records("app", skip=lines) if line["event"].endswith("crashed")]
    if crashes:
        raise Finding(f"a crash: {crashes[0]}", inputs)


async def narrowed(server: Launched, finding: Finding) -> Finding:
    """Send the inputs of a finding one at a time; return the first finding, or ``finding`` if none breaks alone."""
    for given in finding.inputs:
        try:
            await try_all(server, [given])
        except Finding as alone:
            return alone
    return finding


async def fuzz(
    server: Launched, protocol: str, seed: int, count: int, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Send ``count`` random inputs, determined by ``seed``.

    Raises:
        Finding: an invariant is broken. It has the one input that breaks the invariant again when sent alone, or all
            inputs since the last check.
    """
    rng = Random(f"{protocol} {seed}")
    for done in range(0, count, EVERY):
        inputs = [Input.made(protocol, rng) for _ in range(min(EVERY, count - done))]
        try:
            await try_all(server, inputs)
        except Finding as finding:
            raise (await narrowed(server, finding) if server.lives else finding) from None
        progress(done + len(inputs))
