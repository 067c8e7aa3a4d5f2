"""The gateway of ``observe_counting.py``: ``umbel serve`` whose counting is ended and begun again by two signals.

While it is ended, events go to the recorder of the log files directly, and the end of an attempt is compiled without
the statements that count it.
"""

from __future__ import annotations

import ast
import inspect
import signal
import sys
import textwrap
from typing import Any

from umbel.core.events import Recorder
from umbel.gateway import runtime
from umbel.observe.request_counts import CountingRecorder
from umbel.upstream.calls import attempt

BEGIN, END = signal.SIGRTMIN, signal.SIGRTMIN + 1
COUNTING_STATEMENTS = 3
"""The statements in ``Attempt._close`` that count; another number means that this file must be adapted."""


class Switched(CountingRecorder):
    """A counting recorder that ``switch`` finds."""

    instances: list[Switched] = []  # noqa: RUF012  # One per process, from its start to its end.

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.instances.append(self)


COUNTED_CLOSE = attempt.Attempt._close


def without_counting(function: Any, module: Any) -> Any:
    """Return the function without its statements that name ``counts``."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    [definition] = tree.body
    assert isinstance(definition, ast.FunctionDef)
    kept = [statement for statement in definition.body if not _names_counts(statement)]
    if len(definition.body) - len(kept) != COUNTING_STATEMENTS:
        raise SystemExit(f"{function.__qualname__} counts in another way than {__file__} knows")
    definition.body = kept
    scope = dict(vars(module))
    exec(compile(tree, inspect.getfile(function), "exec"), scope)
    return scope[function.__name__]


def _names_counts(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "counts" for node in ast.walk(statement))


def switch(number: int, _: object) -> None:
    """Begin or end all counting in this process: a signal handler."""
    [recorder] = Switched.instances
    if number == BEGIN:
        attempt.Attempt._close = COUNTED_CLOSE  # type: ignore[method-assign]
        del recorder.record  # The class's is found again.
    else:
        attempt.Attempt._close = SILENT_CLOSE  # type: ignore[method-assign]
        recorder.record = recorder.inner.record  # type: ignore[method-assign]


if __name__ == "__main__":
    from umbel.cli import main

    SILENT_CLOSE = without_counting(COUNTED_CLOSE, attempt)
    runtime.CountingRecorder = Switched  # type: ignore[misc]
    for switching in (BEGIN, END):
        signal.signal(switching, switch)
    sys.argv = ["umbel", "serve", "-b", "127.0.0.1:0", "-c", sys.argv[1]]
    main()
