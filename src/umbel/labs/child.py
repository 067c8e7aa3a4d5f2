"""``python -m umbel.labs.child NUMBER COLUMN``: run one program in this process and write its record as JSON."""

from __future__ import annotations

import importlib
import os
import sys

import msgspec

from .model import Run, lab_of


def record(number: int, key: str) -> Run:
    """Run the program of a column until the horizon of its lab, and return what it did."""
    lab = lab_of(number)
    column = lab.column(key)
    program = importlib.import_module(f"{__package__}.{lab.package}.{column.module}")
    if column.library == "asyncio":
        from .on_asyncio import run_on_asyncio as run
    else:
        from .on_trio import run_on_trio as run
    path = program.__file__
    assert path is not None
    return run(program.main, path, key, horizon=lab.horizon, real_time=lab.real_time, grace=lab.grace)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(record(int(sys.argv[1]), sys.argv[2])))
    sys.stdout.flush()
    # Tasks that take no cancel would keep an orderly exit from ending.
    os._exit(0)
