"""Runs the programs of a lab, each in a fresh interpreter, side by side."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import trio

from ..net.exception_groups import first_leaf
from .model import Column, Lab, Run

TIME_MAX_S = 60.0
"""Real seconds after which a program is ended; each takes a few."""


class LabError(Exception):
    """A program of a lab could not be run to its end."""


async def run_lab(lab: Lab) -> dict[str, Run]:
    """Run all columns of a lab and return their records, by column. A cancel ends the processes.

    Raises:
        LabError: a program has crashed or not ended.
    """
    runs: dict[str, Run] = {}

    async def one(column: Column) -> None:
        command = [sys.executable, "-m", f"{__package__}.child", str(lab.number), column.key]
        with trio.move_on_after(TIME_MAX_S):
            ended = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL
            )
            if ended.returncode:
                last = ended.stderr.decode(errors="replace").strip()
                raise LabError(f"Lab {lab.number}, {column.title}: the program has crashed:\n{last}")
            runs[column.key] = msgspec.json.decode(ended.stdout, type=Run)
            return
        raise LabError(f"Lab {lab.number}, {column.title}: the program has not ended within {TIME_MAX_S:g} s.")

    try:
        async with trio.open_nursery() as nursery:
            for column in lab.columns:
                nursery.start_soon(one, column)
    except BaseExceptionGroup as group:
        if (error := first_leaf(group, LabError)) is not None:
            raise error from None
        raise
    return {column.key: runs[column.key] for column in lab.columns}
