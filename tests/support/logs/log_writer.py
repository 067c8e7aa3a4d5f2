"""A program that only logs, for tests of several processes on one file: ``python -m tests.support.logs.log_writer``.

After each burst it prints the number of its last record to stdout, so that a test knows which records must exist.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import trio

from umbel.logs import Log, LogOptions, open_log

BURST = 100


async def write(log: Log, worker: str, count: int, pause: float) -> None:
    for number in range(1, count + 1):
        log.info("test.line", worker=worker, number=number, filling="x" * 80)
        if number % BURST == 0:
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            await trio.sleep(pause)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--worker", default="w")
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--ring", action="store_true")
    parser.add_argument("--rotate-size", type=int)
    parser.add_argument("--compress", default="none")
    parser.add_argument("--flush-every", type=float, default=0.25)
    parser.add_argument("--end", choices=["quiet", "raise"], default="quiet")
    given = parser.parse_args()
    options = LogOptions(
        ring=given.ring,
        rotate_size=given.rotate_size,
        compress=given.compress,
        flush_every=given.flush_every,
        keep=None,
        service="test",
    )
    async with open_log(given.path, options) as log, trio.open_nursery() as nursery:

        async def stop_at_signal(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
                task_status.started()
                async for number in signals:
                    if number == signal.SIGUSR1:
                        log.reopen()
                    else:
                        nursery.cancel_scope.cancel(reason="signal")

        await nursery.start(stop_at_signal)
        await write(log, given.worker, given.count, given.pause)
        if given.end == "raise":
            raise ValueError("the end")
        nursery.cancel_scope.cancel(reason="done")


if __name__ == "__main__":
    trio.run(main)
