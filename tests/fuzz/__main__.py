"""``make fuzz SECONDS=60 SEED=1 ARGS='--protocol http2'``: fuzz for a time and print progress; store a finding."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.fuzz import adversarial
from tests.fuzz.corpus import PROTOCOLS, keep
from tests.fuzz.drip import fuzz_drips
from tests.fuzz.run import KINDS, LIMITS, SETTINGS, Finding, fuzz, narrowed
from tests.support.process.launched_workers import LAUNCHERS
from tests.support.server.raw_server_process import serving_raw

ROUND = 500
"""Inputs per seed; a fifth of it for adversarial ones, which are sent one at a time."""
DRIPS = 100
"""Connections per seed that send byte by byte; see ``drip``."""


def main(arguments: Sequence[str]) -> int:
    """Fuzz until the time is over (exit status 0) or an invariant is broken (exit status 1)."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--protocol", choices=KINDS)
    parser.add_argument("--launcher", choices=LAUNCHERS, default=LAUNCHERS[0])
    options = parser.parse_args(arguments)
    protocols = [options.protocol] if options.protocol else KINDS
    until = time.monotonic() + options.seconds
    seed, total = options.seed, 0
    while time.monotonic() < until:
        with (
            tempfile.TemporaryDirectory() as directory,
            serving_raw(
                options.launcher, Path(directory), LIMITS, settings=SETTINGS, max_body=adversarial.MAX_BODY
            ) as served,
        ):
            while time.monotonic() < until:
                for protocol in protocols:
                    count = ROUND // 5 if protocol == "adversarial" else ROUND
                    try:
                        trio.run(fuzz, served.server, protocol, seed, count)
                        if protocol in PROTOCOLS:
                            fuzz_drips(protocol, seed, DRIPS)
                            count += DRIPS
                    except Finding as finding:
                        return _tell(finding, seed, options.launcher)
                    total += count
                    left = max(0, until - time.monotonic())
                    print(f"{total:>9,} inputs, seed {seed}, {protocol}: nothing found; {left:.0f} s left", flush=True)
                seed += 1
    return 0


def _tell(finding: Finding, seed: int, launcher: str) -> int:
    if len(finding.inputs) > 1:
        # One of the inputs has ended the worker. Send them one at a time to a new worker, to find which.
        with (
            tempfile.TemporaryDirectory() as directory,
            serving_raw(launcher, Path(directory), LIMITS, settings=SETTINGS, max_body=adversarial.MAX_BODY) as served,
        ):
            finding = trio.run(narrowed, served.server, finding)
    print(f"found with seed {seed}: {finding}")
    for given in finding.inputs[:1] if len(finding.inputs) == 1 else ():
        print(
            f"stored as {keep(given.protocol, given.data)} "
            f"(the connection ended with a {given.ending}; segments split at {given.cuts})"
        )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
