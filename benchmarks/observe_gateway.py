"""The gateway of ``observe_counting.py``: ``umbel serve``, which counts and does not count in turn.

After a line on standard input a thread switches counting every ``WINDOW_S`` seconds, and at the end of each window
appends to ``windows``: whether it counted, the CPU seconds of the event loop's thread, the seconds, and the requests.
While it does not count, events go to the recorder of the log files directly, and the end of an attempt is compiled
without the statements that count it.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from umbel.gateway import runtime
from umbel.observe.request_counts import CountingRecorder
from umbel.server import state
from umbel.upstream.calls import attempt

WINDOW_S = 0.1
COUNTING_STATEMENTS = 3
"""The statements in ``Attempt._close`` that count; another number means that this file must be adapted."""


class FoundRecorder(CountingRecorder):
    """The recorder of this process, which ``Switch`` uses."""

    found: FoundRecorder

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        FoundRecorder.found = self


class FoundState(state.ServerState):
    """The state of the server of this process."""

    found: FoundState

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        FoundState.found = self


def without_counting(function: FunctionType, module: Any) -> CodeType:
    """Return the code of the function without its statements that name ``counts``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    [definition] = tree.body
    assert isinstance(definition, ast.FunctionDef)
    kept = [statement for statement in definition.body if not _names_counts(statement)]
    if len(definition.body) - len(kept) != COUNTING_STATEMENTS:
        raise SystemExit(f"{function.__qualname__} counts in another way than {__file__} knows")
    definition.body = kept
    scope = dict(vars(module))
    exec(compile(tree, inspect.getfile(function), "exec"), scope)
    code: CodeType = scope[function.__name__].__code__
    return code


def _names_counts(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "counts" for node in ast.walk(statement))


def switch_for_ever() -> None:
    """Switch and measure, in a thread."""
    close: Any = attempt.Attempt._close
    codes = {True: close.__code__, False: without_counting(close, attempt)}
    recorder, server = FoundRecorder.found, FoundState.found
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    clock = time.pthread_getcpuclockid(main_thread)
    sys.stdin.readline()
    counts = True
    with Path("windows").open("a", buffering=1) as windows:
        while True:
            cpu, began, requests = time.clock_gettime(clock), time.monotonic(), server.statistics().requests_total
            time.sleep(WINDOW_S)
            cpu, took = time.clock_gettime(clock) - cpu, time.monotonic() - began
            windows.write(f"{int(counts)} {cpu} {took} {server.statistics().requests_total - requests}\n")
            counts = not counts
            # Not another function: the interpreter would adapt all code that uses the class again.
            close.__code__ = codes[counts]
            if counts:
                del recorder.record  # The class's is found again.
            else:
                recorder.record = recorder.inner.record  # type: ignore[method-assign]


if __name__ == "__main__":
    from umbel.cli import main
    from umbel.server import serving

    runtime.CountingRecorder = FoundRecorder  # type: ignore[misc]
    serving.ServerState = FoundState  # type: ignore[misc]

    def start() -> None:
        while not hasattr(FoundRecorder, "found") or not hasattr(FoundState, "found"):
            time.sleep(0.05)
        switch_for_ever()

    threading.Thread(target=start, daemon=True).start()
    sys.argv = ["umbel", "serve", "-b", "127.0.0.1:0", "-c", sys.argv[1]]
    main()
