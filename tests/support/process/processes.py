"""Real processes for tests: started, read line by line, and killed at the end of the block."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

PROJECT = Path(__file__).parents[3]
PYTHON = sys.executable
START_S_MAX = 30.0


class Child:
    """A child process. Its stderr goes to the same pipe as its stdout."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""
        self.output = ""
        """All lines read so far."""

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.returncode

    async def line(self, containing: str) -> str:
        """Read up to the next line that contains the text, and return that line.

        Raises:
            AssertionError: the process ended without such a line.
            trio.TooSlowError: no such line came within START_S_MAX seconds.
        """
        with trio.fail_after(START_S_MAX):
            while (line := await self._next_line()) is not None:
                if containing in line:
                    return line
        raise AssertionError(f"the process ended without a line with {containing!r}; its output:\n{self.output}")

    async def address(self, containing: str = "http://") -> str:
        """Return the URL in the next line that contains the text."""
        line = await self.line(containing)
        return next(word for word in line.split() if word.startswith("http://"))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, signal_number: int) -> None:
        """Send a signal."""
        self._process.send_signal(signal_number)

    async def stop(self, signal_number: int) -> int:
        """Send a signal, read the rest of the output, wait for the end, and return the exit status."""
        self._process.send_signal(signal_number)
        return await self.end()

    async def follow(self) -> None:
        """Read the output until the process has ended, so that it never waits for its reader."""
        while await self._next_line() is not None:
            pass

    async def end(self) -> int:
        """Read the rest of the output, wait for the end, and return the exit status."""
        with trio.fail_after(START_S_MAX):
            await self.follow()
            return await self._process.wait()

    async def _next_line(self) -> str | None:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            piece = await self._process.stdout.receive_some()
            if not piece:
                rest, self._unread = self._unread.decode(), b""
                self.output += rest
                return rest or None
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        self.output += line.decode() + "\n"
        return line.decode()


@asynccontextmanager
async def started(
    *command: str, cwd: Path, env: Mapping[str, str] | None = None, pass_fds: Collection[int] = ()
) -> AsyncGenerator[Child, None]:
    """Run a command within the block; a process that still runs after the block is killed."""
    process = await trio.lowlevel.open_process(
        command,
        cwd=cwd,
        env={**environment(), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
    )
    try:
        async with process.stdout:  # type: ignore[union-attr]  # it is a pipe, as asked for
            yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()


async def ended(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return its exit status and its output."""
    async with started(*command, cwd=cwd, env=env) as child:
        return await child.end(), child.output


def environment() -> dict[str, str]:
    """The environment of the test, without the variables that would change the behaviour of a child."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("UMBEL_", "MAKE", "USERS_", "MFLAGS"))
    }
