"""A program whose stderr, or all of whose standard streams, are a terminal."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import termios
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.support.process.processes import PYTHON, environment


class Program:
    """A program on a terminal."""

    def __init__(self, process: trio.Process, terminal: trio.lowlevel.FdStream) -> None:
        self.process = process
        self.shown = ""
        self._terminal = terminal

    async def until(self, pattern: str) -> re.Match[str]:
        """Read the terminal until it shows ``pattern``."""
        with trio.fail_after(30):
            while (found := re.search(pattern, self.shown)) is None:
                self.shown += (await self._terminal.receive_some()).decode().replace("\r\n", "\n")
        return found

    async def type(self, keys: bytes) -> None:
        """Press keys."""
        await self._terminal.send_all(keys)

    async def end(self) -> int:
        """Wait for the end, and return the exit status."""
        with trio.fail_after(30):
            return await self.process.wait()

    async def port(self) -> int:
        """The port, from the line on stdout."""
        assert self.process.stdout is not None
        said = b""
        with trio.fail_after(30):
            while (found := re.search(rb"runs on http://127\.0\.0\.1:(\d+)", said)) is None:
                said += await self.process.stdout.receive_some()
        return int(found[1])


@asynccontextmanager
async def on_terminal(
    directory: Path, *arguments: str, whole: bool = False, **env: str
) -> AsyncGenerator[Program, None]:
    """Run ``umbel`` with these arguments; its stderr is a terminal, with ``whole`` stdin and stdout too."""
    ours, theirs = os.openpty()
    try:
        process = await trio.lowlevel.open_process(
            [PYTHON, "-m", "umbel", *arguments],
            cwd=directory,
            env={**environment(), **env},
            stdin=theirs if whole else subprocess.DEVNULL,
            stdout=theirs if whole else subprocess.PIPE,
            stderr=theirs,
            start_new_session=whole,
            preexec_fn=(lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0)) if whole else None,
        )
    finally:
        os.close(theirs)
    async with trio.lowlevel.FdStream(ours) as terminal:
        try:
            yield Program(process, terminal)
        finally:
            if process.returncode is None:
                process.terminate()
            with trio.move_on_after(10, shield=True) as scope:
                await process.wait()
            if scope.cancelled_caught:
                process.kill()
