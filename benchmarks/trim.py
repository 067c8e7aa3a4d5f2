"""The memory that ``malloc_trim`` returns after a load peak, and how long it stops the event loop: ``make bench-trim``.

Tasks hold a list of values each until all are released. Then the heap is trimmed in a thread, as ``heap_trim`` of
``umbel.server.process`` does, while the event loop sleeps again and again, or allocates without a pause. Each row is
measured in a process of its own. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import trio
import trio.testing

VALUES = 150
"""Values of some 800 bytes that a request holds."""
ROWS = ((256, VALUES), (2000, VALUES), (2000, 0))
MB = 1_000_000


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _held(values: int, release: trio.Event) -> None:
    data = [bytes(700 + number) for number in range(values)]
    await release.wait()
    del data


async def _longest_pause(until: trio.Event, allocating: bool) -> float:
    longest, before = 0.0, time.perf_counter()
    while not until.is_set():
        if allocating:
            _ = [bytes(700 + number) for number in range(100)]
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(0.0005)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


async def _measure(count: int, values: int, allocating: bool) -> None:
    trim = ctypes.CDLL(None).malloc_trim
    before, release = resident(), trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_held, values, release)
        await trio.testing.wait_all_tasks_blocked(0.01)
        peak = resident()
        release.set()
    over, pauses, took = trio.Event(), [], 0.0

    async def watch() -> None:
        pauses.append(await _longest_pause(over, allocating))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(0.05)
        began = time.perf_counter()
        await trio.to_thread.run_sync(trim, 0)
        took = time.perf_counter() - began
        over.set()
    share = (peak - resident()) / (peak - before)
    loop, sizes = "allocates" if allocating else "idle", (before, peak, resident())
    shown = " | ".join(f"{size / MB:.0f} MB" for size in sizes)
    times = f"{took * 1000:.0f} ms | {pauses[0] * 1000:.0f} ms"
    print(f"| {count:,} | {values} | {loop} | {shown} | {share:.0%} | {times} |")


def main() -> None:
    """Print the table, or with arguments one row of it."""
    if len(sys.argv) > 1:
        count, values, allocating = map(int, sys.argv[1:])
        trio.run(_measure, count, values, bool(allocating))
        return
    print("| held | values each | the loop | before | at the peak | trimmed | returned | the call | longest pause |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for count, values in ROWS:
        for allocating in (0, 1):
            command = [sys.executable, "-m", "benchmarks.trim", str(count), str(values), str(allocating)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
