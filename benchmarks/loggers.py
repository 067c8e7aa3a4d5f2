"""The loggers that ``logs.py`` compares, each in a process of its own: ``loggers.py NAME MEASURE DIRECTORY SECONDS``.

Each writes JSON lines with ten fields, a time, a level and the process. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import math
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

FIELDS: dict[str, Any] = {
    "method": "GET",
    "path": "/dashboard/42",
    "route": "/dashboard/<user_id>",
    "status": 200,
    "duration_ms": 12.345,
    "size": 512,
    "completed": True,
    "client": "127.0.0.1",
    "attempts": 1,
    "upstream": "users",
}
RATE = 1000
STALL_S = 2.0
Emit = Callable[[], Awaitable[None] | None]
Opened = AbstractAsyncContextManager[tuple[Emit, Callable[[], Awaitable[None]]]]


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "ts": record.created,
                "level": record.levelname,
                "event": record.getMessage(),
                "process.pid": record.process,
                **record.fields,  # type: ignore[attr-defined]  # given as extra
            }
        )


async def nothing_to_wait_for() -> None:
    """Do nothing: these loggers write at once."""


def umbel(**options: Any) -> Callable[[Path], Opened]:
    @asynccontextmanager
    async def opened(path: Path) -> AsyncGenerator[Any, None]:
        from umbel.logs import LogOptions, bound, open_log

        options_ = LogOptions(service="bench", rotate_size=None, **options)
        async with open_log(path, options_) as log:
            info = log.info
            with bound(request_id="0123456789abcdef", trace_id="0" * 32):
                yield (lambda: info("request.end", **FIELDS)), log.flush

    return opened


@asynccontextmanager
async def recorder(path: Path) -> AsyncGenerator[Any, None]:
    from umbel.config.schema.sections import Logs
    from umbel.core.events import RequestEnded
    from umbel.core.model import RequestFacts, Trace
    from umbel.logs import open_recorder

    facts = RequestFacts("0123456789abcdef", Trace("0" * 32), "GET", "/dashboard/42", "/dashboard/<user_id>", 1.0)
    event = RequestEnded(facts, 200, 1.012345, 512, True, client="127.0.0.1")
    settings = {"dir": str(path.parent), "access": {"file": path.name}, "rotate_size": "off"}
    async with open_recorder(Logs.model_validate(settings)) as files:
        yield (lambda: files.record(event)), files.flush


@asynccontextmanager
async def bridged(path: Path) -> AsyncGenerator[Any, None]:
    from umbel.logs import LogOptions, bridge, open_log

    logger = logging.getLogger("bench")
    logger.propagate = False
    async with open_log(path, LogOptions(service="bench", rotate_size=None)) as log:
        with bridge(log, "bench", level=logging.INFO):
            yield (lambda: logger.info("request.end", extra=FIELDS)), log.flush


@asynccontextmanager
async def file_handler(path: Path) -> AsyncGenerator[Any, None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield (lambda: logger.info("request.end", extra={"fields": FIELDS})), nothing_to_wait_for
    handler.close()


@asynccontextmanager
async def queue_handler(path: Path) -> AsyncGenerator[Any, None]:
    import trio

    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter())
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, handler)
    listener.start()
    logger = logging.getLogger("bench")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(waiting))

    async def flush() -> None:
        while not waiting.empty():
            await trio.sleep(0.005)

    yield (lambda: logger.info("request.end", extra={"fields": FIELDS})), flush
    await trio.to_thread.run_sync(listener.stop)
    handler.close()


def loguru(**options: Any) -> Callable[[Path], Opened]:
    @asynccontextmanager
    async def opened(path: Path) -> AsyncGenerator[Any, None]:
        import trio
        from loguru import logger

        logger.remove()
        logger.add(str(path), serialize=True, **options)
        info = logger.bind(**FIELDS).info

        async def flush() -> None:
            await trio.to_thread.run_sync(logger.complete)

        yield (lambda: info("request.end")), flush
        await trio.to_thread.run_sync(logger.remove)

    return opened


def line() -> str:
    return json.dumps({"ts": time.time(), "level": "INFO", "event": "request.end", "pid": os.getpid(), **FIELDS}) + "\n"


@asynccontextmanager
async def aiofiles_each(path: Path) -> AsyncGenerator[Any, None]:
    import aiofiles

    async def emit() -> None:
        async with aiofiles.open(path, "a") as file:
            await file.write(line())

    yield emit, nothing_to_wait_for


@asynccontextmanager
async def aiofiles_kept(path: Path) -> AsyncGenerator[Any, None]:
    import aiofiles

    async with aiofiles.open(path, "a") as file:

        async def emit() -> None:
            await file.write(line())
            await file.flush()

        yield emit, nothing_to_wait_for


@asynccontextmanager
async def silence(path: Path) -> AsyncGenerator[Any, None]:
    yield (lambda: None), nothing_to_wait_for


LOGGERS: dict[str, Callable[[Path], Opened]] = {
    "no logging": silence,
    "umbel, our own record": recorder,
    "umbel, log.info": umbel(),
    "umbel, with ring": umbel(ring=True),
    "umbel, through logging": bridged,
    "logging, FileHandler": file_handler,
    "logging, QueueHandler": queue_handler,
    "loguru": loguru(),
    "loguru, enqueue": loguru(enqueue=True),
    "aiofiles, kept open": aiofiles_kept,
    "aiofiles, open per line": aiofiles_each,
}


async def cost(opened: Opened, sleep: Any, seconds: float) -> dict[str, float]:
    """Return the CPU µs of the event loop's thread per call: the best of many short bursts with pauses to write."""
    best, burst = math.inf, 100
    async with opened as (emit, flush):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.thread_time()
            for _ in range(burst):
                waited = emit()
                if waited is not None:
                    await waited
            best = min(best, (time.thread_time() - began) / burst)
            await flush()
            await sleep(0.002)
    return {"cost": best * 1e6}


def written(path: Path) -> int:
    return sum(b"request.end" in each for each in path.read_bytes().splitlines()) if path.exists() else 0


async def throughput(opened: Opened, sleep: Any, path: Path, seconds: float) -> dict[str, float]:
    """Return the records per second that reach the file under full load, and the share that is lost."""
    async with opened as (emit, flush):
        began = time.perf_counter()
        count = 0
        while time.perf_counter() - began < seconds:
            for _ in range(100):
                waited = emit()
                if waited is not None:
                    await waited
            count += 100
            await sleep(0)
        await flush()
        took = time.perf_counter() - began
    lines = written(path)
    return {"rate": lines / took, "lost": 1 - lines / count}


async def stall(opened: Opened, sleep: Any) -> dict[str, float]:
    """Return the lateness of a 1 ms timer while the reader of the pipe reads nothing for two seconds."""
    late: list[float] = []
    async with opened as (emit, _):
        end = time.perf_counter() + STALL_S + 1.5
        while (now := time.perf_counter()) < end:
            await sleep(0.001)
            for _ in range(RATE // 1000 * 2):
                waited = emit()
                if waited is not None:
                    await waited  # who awaits each line is late himself
            late.append(time.perf_counter() - now - 0.001)
    late.sort()
    return {
        "p50": statistics.median(late) * 1e3,
        "p999": late[min(len(late) - 1, math.floor(0.999 * len(late)))] * 1e3,
        "max": late[-1] * 1e3,
    }


READER = f"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)  # so that it stays open between two writers
end = time.monotonic() + 0.5
while time.monotonic() < end and os.read(fd, 65536): pass
time.sleep({STALL_S})
while os.read(fd, 65536): pass
"""


def main() -> None:
    name, measure, directory, seconds = sys.argv[1:]
    path = Path(directory) / "bench.jsonl"
    make = LOGGERS[name]
    opened = make(path)
    reader = None
    if measure == "stall" and make is not silence:
        os.mkfifo(path)
        reader = subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.DEVNULL)

    def work(sleep: Any) -> Any:
        if measure == "cost":
            return cost(opened, sleep, float(seconds))
        return throughput(opened, sleep, path, float(seconds)) if measure == "throughput" else stall(opened, sleep)

    if name.startswith("aiofiles"):
        result = asyncio.run(work(asyncio.sleep))
    else:
        import trio

        result = trio.run(work, trio.sleep)
    print(json.dumps(result), flush=True)
    if reader is not None:
        reader.kill()
        reader.wait()


if __name__ == "__main__":
    main()
