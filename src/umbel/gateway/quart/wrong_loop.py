"""Response of an application under a server that does not run trio: one message with the right command.

Umbel needs trio. Without this check, the first ``await`` would fail with a long traceback that names neither trio nor
the server's option.
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
    """Refuse an ASGI scope without using trio: startup fails, a request gets 503, a WebSocket is closed.

    Raises:
        SystemExit: 78, if the server raises an exception for the failed startup, which it would print as a traceback.
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
    # The server has not run a lifespan, so the message has not been written yet.
    say(sentence)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1011, "reason": ""})
        return
    body = b"The gateway is not ready.\n"
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _look_at_the_end_of_this_task() -> None:
    """Retrieve the exception of the current asyncio task, which asyncio would otherwise log with its traceback."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def wrong_loop(argv: Sequence[str]) -> str:
    """The message for a process that was started with the arguments ``argv``."""
    return f"Umbel needs trio, and this server runs another event loop; start it with: {_command(argv)}"


def _command(argv: Sequence[str]) -> str:
    """The ``hypercorn`` command that serves the same application on trio."""
    program = "/".join(Path(argv[0]).parts[-2:]) if argv else ""
    if program in _HYPERCORN or program.rpartition("/")[2] in _HYPERCORN:
        return f"hypercorn -k trio {shlex.join(_without_worker_class(argv[1:]))}"
    named = (word for word in argv[1:] if _names_application(word))
    return f"hypercorn -k trio {next(named, _USUAL)}"


def _names_application(word: str) -> bool:
    """Whether ``word`` names an application (``module:app`` or ``module:make()``), and no address."""
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
