"""The time that the gateway adds to a response, beside aiohttp: one client, ten calls, answered after 20 ms.

Each response of the upstream states its duration; the longest of the ten is subtracted from the client's latency.
"""

from __future__ import annotations

import json
import re
import socket
import statistics
import sys
import time
from typing import NamedTuple

from path_processes import HERE, gateway, script
from path_report import Line, Section, milliseconds, percentile, progress, route, spread, upstream

CALLS = 10
DELAY_MS = 20
BAR = 0.5
"""The most of the peer's own time, at the median."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
OWN = re.compile(rb"\r\nserver-timing: umbel;dur=([\d.]+)", re.IGNORECASE)
HOW = f"""One client, unloaded, {CALLS} calls per request, each answered after {DELAY_MS} ms. Own time is from
the client's `send` to the last byte of the answer, minus the longest true time of a call in the upstream, which
measures it itself. The peer is aiohttp in a bare ASGI function under uvicorn with uvloop, without records; both are
asked in turn, and the ratio is taken round by round."""


class Sample(NamedTuple):
    """The durations of one request, in seconds."""

    own: float
    """What the client waited, without the longest upstream time."""
    way_in: float
    """Until the first call was with the upstream."""
    fan_out: float
    """From there until the last one was."""
    way_out: float
    """From the last answer of the upstream to the end of ours."""
    reported: float
    """What ``Server-Timing: umbel`` says; 0 without."""


def ask(sock: socket.socket, request: bytes) -> Sample:
    began = time.monotonic()
    sock.send(request)
    answer = b""
    while True:
        piece = sock.recv(65536)
        if not piece:
            raise SystemExit(f"the connection was closed: {answer[:300]!r}")
        answer += piece
        head, end, body = answer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        if end and found is not None and len(body) >= int(found[1]):
            break
    ended = time.monotonic()
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"no whole answer: {answer[:300]!r}")
    parts = list(json.loads(body).values())
    came, went = [part["received"] for part in parts], [part["answered"] for part in parts]
    longest = max(out - into for out, into in zip(went, came, strict=True))
    reported = OWN.search(head)
    return Sample(
        ended - began - longest,
        min(came) - began,
        max(came) - min(came),
        ended - max(went),
        float(reported[1]) / 1e3 if reported is not None else 0.0,
    )


def series(port: int, count: int) -> list[Sample]:
    """Send requests one after the other, on one connection, after a fifth as many to warm up."""
    request = f"GET /ten/4711 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return [ask(sock, request) for _ in range(count + count // 5)][count // 5 :]


def configuration(target: str) -> str:
    return upstream("parts", [target]) + route("ten", ["parts"] * CALLS)


def measure(*, quick: bool) -> Section:
    rounds, count = (2, 50) if quick else (10, 50)
    ours: list[list[Sample]] = []
    peer: list[list[Sample]] = []
    with script(1, "path_upstream.py", "exact", str(DELAY_MS)) as stub:
        target = stub.line()
        config = configuration(target)
        with (
            gateway(config) as (_, our_port),
            gateway(config, sys.executable, str(HERE / "path_peer.py"), target) as (_, peer_port),
        ):
            for turn in range(rounds):
                ours.append(series(our_port, count))
                peer.append(series(peer_port, count))
                progress(f"overhead: round {turn + 1} of {rounds} done")
    return Section("Own time of an answer", HOW, lines(ours, peer))


def lines(ours: list[list[Sample]], peer: list[list[Sample]]) -> list[Line]:
    """Return the lines for the rounds of both."""
    every, theirs = ([sample for some in rounds for sample in some] for rounds in (ours, peer))
    ratios = [
        percentile([sample.own for sample in one], 0.5) / percentile([sample.own for sample in other], 0.5)
        for one, other in zip(ours, peer, strict=True)
    ]

    def quantiles(part: str, samples: list[Sample]) -> str:
        """Format p50, p90 and p99 of a part of the samples."""
        found = (percentile([getattr(sample, part) for sample in samples], share) for share in (0.5, 0.9, 0.99))
        return ", ".join(map(milliseconds, found))

    return [
        Line("own time, p50, to aiohttp's", spread(ratios), f"≤ {BAR:g}", statistics.median(ratios) <= BAR),
        Line("own time: p50, p90, p99", quantiles("own", every)),
        Line("aiohttp's: p50, p90, p99", quantiles("own", theirs)),
        Line("until the first call was with the upstream: p50, p90, p99", quantiles("way_in", every)),
        Line("from the first call to the last: p50, p90, p99", quantiles("fan_out", every)),
        Line("from the upstream's last answer to the end of ours: p50, p90, p99", quantiles("way_out", every)),
        Line("`Server-Timing: umbel`: p50, p90, p99", quantiles("reported", every)),
        Line("aiohttp's, until the first call was with the upstream: p50, p90, p99", quantiles("way_in", theirs)),
        Line("aiohttp's, from the first call to the last: p50, p90, p99", quantiles("fan_out", theirs)),
        Line("aiohttp's, from the upstream's last answer to the end: p50, p90, p99", quantiles("way_out", theirs)),
    ]
