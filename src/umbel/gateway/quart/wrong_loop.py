"""What an application says under a server that does not run trio: one sentence, with the command that does.

Everything of Umbel needs trio. Without this, the first await of it fails deep inside, with a page of frames that name
neither trio nor the option.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from hypercorn.utils import LifespanFailureError

from ...core.console import say

_EXIT_CONFIG = 78
_HYPERCORN = frozenset({"hypercorn", "hypercorn/__main__.py"})
_USUAL = "umbel.asgi:app"

Send = Callable[[Any], Awaitable[None]]


async def refuse(scope: Any, send: Send) -> None:
    """Answer an ASGI scope without anything of trio's: the startup fails, a request is a 503, a WebSocket is refused.

    Raises:
        SystemExit: 78, where the server would print its own frames around the sentence.
    """
    sentence = wrong_loop(sys.argv)
    if scope["type"] == "lifespan":
        try:
            await send({"type": "lifespan.startup.failed", "message": sentence})
        except LifespanFailureError:
            say(sentence)
            _look_at_the_end_of_this_task()
            raise SystemExit(_EXIT_CONFIG) from None
        return
    # A server without a lifespan: there was no better moment to say it.
    say(sentence)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1011, "reason": ""})
        return
    body = b"The gateway is not ready.\n"
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _look_at_the_end_of_this_task() -> None:
    """Else asyncio logs its exception as one that nobody has looked at, with all frames."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def wrong_loop(argv: Sequence[str]) -> str:
    """The sentence for a process that was started with these arguments."""
    return f"Umbel needs trio, and this server runs another event loop; write: {_command(argv)}"


def _command(argv: Sequence[str]) -> str:
    """The ``hypercorn`` command that serves the same on trio."""
    program = "/".join(Path(argv[0]).parts[-2:]) if argv else ""
    if program in _HYPERCORN or program.rpartition("/")[2] in _HYPERCORN:
        return f"hypercorn -k trio {shlex.join(_without_worker_class(argv[1:]))}"
    named = (word for word in argv[1:] if _names_application(word))
    return f"hypercorn -k trio {next(named, _USUAL)}"


def _names_application(word: str) -> bool:
    """Whether it is ``module:app`` or ``module:make()``, and no address."""
    module, _, name = word.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *name.removesuffix("()").split(".")))


def _without_worker_class(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not (skip or word in ("-k", "--worker-class") or word.startswith(("-k", "--worker-class="))):
            kept.append(word)
        skip = word in ("-k", "--worker-class")
    return kept
