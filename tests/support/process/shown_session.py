"""A document that a reader follows with an editor and terminals: its files are written, its commands run.

A code block with a title is a file, ``title="NAME"``; with ``title="NAME (append)"`` it is appended to that file. In a
``console`` block, a line that begins with ``$`` is a command, and the lines after it are its output, if they are shown.
``umbel serve`` runs until a line ``^C``, the start of another server on its address, or the end. ``curl`` is played by
httpx, so that the tests need no program that pip cannot install.
"""

from __future__ import annotations

import random
import re
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.process.processes import PYTHON, Child, ended, started
from tests.support.testing.plug_in import PLUG_IN

_SHOWN = "127.0.0.1"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_APPEND = " (append)"
_PREPARES = ("python3 -m venv", ". .venv/bin/activate", "pip install")
"""Beginnings of commands that prepare an environment; the tests run in one."""
_VOLATILE = (
    (r"^date: .*$", "date: D"),
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"\b\d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"\bdur=[\d.]+", "dur=N"),
    (r"(ms\"?(?:=|: ?))[\d.]+", r"\1N"),
    (r"\b[\d.]+(m?s)\b", r"N\1"),
)
"""What differs from run to run, with its replacement."""


class Step(NamedTuple):
    """A file to write (``command`` is empty), or a command to run."""

    file: str
    content: str
    command: str
    shown: str
    """The output that the document shows; empty: not shown."""


def steps_of(document: str) -> Iterator[Step]:
    """Yield what a reader of the document does, in its order."""
    for language, title, content in _BLOCK.findall(document):
        if language != "console":
            if title:
                yield Step(title, content, "", "")
            continue
        for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield Step("", "", command, shown)


def shows(shown: str, output: str) -> bool:
    """Return whether an output is the one that is shown, in which ``…`` stands for anything within a line."""
    pattern = re.escape(_normalized(shown)).replace("…", ".*")
    return re.fullmatch(pattern, _normalized(output)) is not None


def _normalized(output: str) -> str:
    """Return an output without what differs from run to run. The lines of a stream of JSON are put into one order."""
    for pattern, replacement in _VOLATILE:
        output = re.sub(pattern, replacement, output, flags=re.MULTILINE)
    lines = output.strip().splitlines()
    return "\n".join(sorted(lines) if output.startswith('{"call"') else lines)


@dataclass
class Session:
    """The folder and the servers of a reader."""

    folder: Path
    address: str
    """The loopback address of this session, in place of 127.0.0.1: so the ports that are shown are free."""
    _stack: AsyncExitStack
    _servers: dict[str, Child] = field(default_factory=dict)

    async def run(self, step: Step) -> str:
        """Write the file or run the command of a step; return the output, as if it came from 127.0.0.1."""
        if step.file:
            name = step.file.removesuffix(_APPEND)
            text = step.content.replace(_SHOWN, self.address)
            with (self.folder / name).open("a" if name != step.file else "w") as file:
                file.write(text)
            return ""
        if step.command.startswith(_PREPARES):
            return ""
        said = await self._command(step.command.replace(_SHOWN, self.address), step.shown.strip() == "^C")
        return said.replace(self.address, _SHOWN)

    async def _command(self, command: str, interrupted: bool) -> str:
        words = shlex.split(command)
        environ = {}
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            environ[name] = value
        match words:
            case ["curl", *options]:
                return await _curl(options)
            case ["umbel", "serve", *options]:
                return await self._serve(options, environ, interrupted)
            case ["umbel", *_]:
                return (await ended(PYTHON, "-m", *words, cwd=self.folder, env=environ))[1]
            case ["pytest", *_]:
                return (await ended(PYTHON, "-m", *words, *PLUG_IN, cwd=self.folder, env=environ))[1]
            case ["sed", *_]:
                return (await ended("sh", "-c", command, cwd=self.folder, env=environ))[1]
        raise AssertionError(f"the tests cannot run: {command}")

    async def _serve(self, options: list[str], environ: dict[str, str], interrupted: bool) -> str:
        """Start a server in place of the one on its address; only stop the latter, if the document shows ``^C``."""
        options = options if "-b" in options else [*options, "-b", f"{self.address}:8000"]
        address = options[options.index("-b") + 1]
        if address in self._servers:
            assert await self._servers.pop(address).stop(signal.SIGINT) == 0
        if interrupted:
            return "^C"
        command = (PYTHON, "-m", "umbel", "serve", *options)
        child = await self._stack.enter_async_context(started(*command, cwd=self.folder, env=environ))
        await child.line("Umbel runs on")
        self._servers[address] = child
        return ""


async def _curl(options: list[str]) -> str:
    """Make the request of a curl command; return what curl prints."""
    headers, shows_head, url = {}, False, ""
    words = iter(options)
    for word in words:
        match word:
            case "-i":
                shows_head = True
            case "-N":
                pass
            case "-H":
                name, _, value = next(words).partition(":")
                headers[name] = value.strip()
            case _:
                url = word
    async with httpx.AsyncClient() as client:
        reply = await client.get(url, headers={"accept": "*/*", **headers})
    if not shows_head:
        return reply.text
    head = [f"HTTP/1.1 {reply.status_code} {reply.reason_phrase}", *(f"{k}: {v}" for k, v in reply.headers.items())]
    return "\n".join([*head, "", reply.text])


@asynccontextmanager
async def session(folder: Path) -> AsyncGenerator[Session, None]:
    """A session in a folder; its servers are killed at the end."""
    assert sys.platform == "linux"  # Each address of 127.0.0.0/8 is there without being configured.
    address = ".".join(["127", *(str(random.SystemRandom().randint(1, 254)) for _ in range(3))])
    async with AsyncExitStack() as stack:
        yield Session(folder, address, stack)
