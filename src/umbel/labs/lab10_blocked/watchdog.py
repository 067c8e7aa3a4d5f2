"""Umbel's watchdog of the event loop, with what it writes to stderr made a note of the lab."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from umbel.labs.kit import note
from umbel.server.process.loop_watchdog import watched_loop

HANG_TIMEOUT_S = 0.5
_FRAME = re.compile(r'File "[^"]*/(?P<file>with_\w+\.py)", line (?P<line>\d+) in (?P<function>\w+)')


@asynccontextmanager
async def watchdog() -> AsyncIterator[None]:
    """Watch the event loop. When it was blocked, note for how long and where."""
    with tempfile.TemporaryFile("w+") as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)

        def record(sentence: str) -> None:
            written.seek(0)
            found = _FRAME.search(written.read())
            where = f"{found['file']}, line {found['line']}, in {found['function']}" if found else "unknown"
            note(f"watchdog: {sentence}: {where}")

        try:
            async with watched_loop(HANG_TIMEOUT_S, record):
                yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
