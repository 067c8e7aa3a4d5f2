"""``python -m umbel.labs.child NUMBER COLUMN``: run one program in this process and write its record as JSON."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import msgspec

from .model import Run, lab_of


def record(number: int, key: str) -> Run:
    """Run the program of a column until the horizon of its lab, and return what it did."""
    lab = lab_of(number)
    column = lab.column(key)
    program = importlib.import_module(f"{__package__}.{lab.package}.{column.module}")
    path = program.__file__
    assert path is not None
    times: dict[str, Any] = {"horizon": lab.horizon, "real_time": lab.real_time, "grace": lab.grace}
    if column.library == "asyncio":
        from .on_asyncio import run_on_asyncio

        return run_on_asyncio(program.main, path, key, ends=lab.ends, **times)
    from .on_trio import run_on_trio

    return run_on_trio(program.main, path, key, **times)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(record(int(sys.argv[1]), sys.argv[2])))
    sys.stdout.flush()
    # Tasks that take no cancel would keep an orderly exit from ending.
    os._exit(0)
