"""The cost of compressing one response, and the bytes that it saves: ``make bench-compress``, some seconds.

Bodies are JSON lists of orders. The cost is that of the gateway's whole last step (negotiation, fields, coding), less
that of the same step for a client without Accept-Encoding, in CPU time. A response of at least ``min`` bytes must save
more time on a link of 100 Mbit/s than it costs; the last column is the rate of the link on which both are equal.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time

import trio

from umbel.config.schema.compress import Compress
from umbel.config.schema.values.units import format_size
from umbel.gateway.browsers.compression import Compression, WholeResponse
from umbel.gateway.request.request_fields import RequestFields

SIZES = (512, 1024, 1700, 4096, 16 * 1024, 64 * 1024)
CODINGS = ("zstd", "br", "gzip")
ROUNDS, ROUND_S = 15, 0.02
LINK_BITS_S = 100e6
ZSTD_SIZE, ZSTD_MAX_US = 1700, 40.0


def body_of(size: int) -> bytes:
    """A JSON list of orders, cut to ``size`` bytes."""
    rng = random.Random(7)
    orders: list[dict[str, object]] = []
    while len(text := json.dumps(orders, separators=(",", ":"))) < size:
        words = rng.sample(["garden", "tools", "seed", "sale", "new", "gift"], 2)
        price, state = rng.randrange(10_000) / 100, rng.choice(["paid", "sent"])
        orders.append({"id": rng.randrange(10**6), "price": price, "state": state, "tags": words})
    return text.encode()[:size]


async def cost_us(compression: Compression, coding: str, body: bytes) -> tuple[float, int]:
    """Return the least CPU microseconds of one response in a coding (empty: none), and the bytes of its body."""
    asked = RequestFields([(b"accept-encoding", coding.encode())] if coding else [])
    fields = [(b"content-type", b"application/json"), (b"vary", b"Accept"), (b"etag", b'"0123456789abcdef"')]
    fields += [(b"content-length", b"%d" % len(body)), (b"server-timing", b"umbel;dur=0.3"), (b"x-request-id", b"a")]
    least = float("inf")
    for _ in range(ROUNDS):
        done, began = 0, time.thread_time()
        while (used := time.thread_time() - began) < ROUND_S:
            for _ in range(10):
                whole = await compression.apply(asked, "GET", WholeResponse(200, list(fields), body))
            done += 10
        least = min(least, used / done)
    return least * 1e6, len(whole.body)


async def main() -> bool:
    # With min = "1B" the sizes below the default are coded too.
    compression, in_force = Compression(Compress(min="1B")), Compress()
    gc.disable()
    print("| body | coding | bytes sent | µs | pays on links up to |")
    print("|---:|---|---:|---:|---:|")
    kept = True
    for size in SIZES:
        body = body_of(size)
        without, _ = await cost_us(compression, "", body)
        for coding in CODINGS:
            total, sent = await cost_us(compression, coding, body)
            cost = total - without
            rate = (size - sent) * 8 / (cost * 1e-6)
            kept &= size < in_force.min or rate > LINK_BITS_S
            kept &= not (coding == "zstd" and size == ZSTD_SIZE and cost > ZSTD_MAX_US)
            print(f"| {format_size(size)} | {coding} | {sent} | {cost:.0f} | {rate / 1e6:.0f} Mbit/s |")
    print(
        f"\nbars: zstd of {ZSTD_SIZE} bytes at most {ZSTD_MAX_US:.0f} µs; from min ({format_size(in_force.min)}) on,"
        f" each coding pays on {LINK_BITS_S / 1e6:.0f} Mbit/s: {'kept' if kept else 'MISSED'}"
    )
    return kept


if __name__ == "__main__":
    sys.exit(not trio.run(main))
