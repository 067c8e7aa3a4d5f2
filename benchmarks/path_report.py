"""The report of a measurement: lines with the result beside its bar, and notes."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marked import replace_marked
from path_processes import pin_this
from processes import ended


class Line(NamedTuple):
    """One figure with its bar."""

    what: str
    reached: str
    bar: str = ""
    met: bool | None = None
    """None where there is no bar."""

    def markdown(self) -> str:
        verdict = {None: "", True: "yes", False: "**no**"}[self.met]
        return f"| {self.what} | {self.bar} | {self.reached} | {verdict} |\n"


class Section(NamedTuple):
    """One measurement: its lines and notes."""

    title: str
    how: str
    lines: Sequence[Line]

    def table(self) -> str:
        return "| | bar | reached | met |\n|---|---:|---:|---|\n" + "".join(line.markdown() for line in self.lines)

    def markdown(self) -> str:
        return f"## {self.title}\n\n{self.how}\n\n{self.table()}"


def measure_all(
    description: str | None,
    title: str,
    file: Path,
    measures: Mapping[str, Callable[..., Section]],
    quoted: Mapping[str, Path] | None = None,
) -> None:
    """The command of a bench: measure, print the report, and write it to ``file``, ``bench-NAME``'s NAME.md.

    Args:
        description: the text of ``--help``.
        title: the title of the report.
        measures: by their names for ``--only``.
        quoted: the documents that have the table of a measure between markers with the measure's name.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few and short rounds; writes no file")
    parser.add_argument("--only", choices=measures, help="one of the measurements; writes no file")
    given = parser.parse_args()
    pin_this(1)
    signal.signal(signal.SIGTERM, ended)
    sections = {name: measure(quick=given.quick) for name, measure in measures.items() if given.only in (None, name)}
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
    head = f"""# {title}

Written by `make bench-{file.stem}`. {machine}: the gateway on one, clients and upstreams
on another. Records of requests and calls, fields and deadline as they are by default.
"""
    text = "\n".join([head, *(section.markdown() for section in sections.values())])
    print(text)
    if not given.quick and not given.only:
        file.write_text(text, encoding="utf-8")
        for name, document in (quoted or {}).items():
            replace_marked(document, name, sections[name].table().rstrip())


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Format the median, with the minimum and maximum in brackets."""
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}}-{max(values):{form}})" if len(values) > 1 else middle


def route(name: str, upstreams: Sequence[str], more: str = "") -> str:
    """Return a route with one call to each of ``upstreams``, which may repeat."""
    calls = "".join(
        f'[routes.calls.part{number}]\nupstream = "{upstream}"\npath = "/items/{{item_id}}/parts/{number}"\n'
        for number, upstream in enumerate(upstreams)
    )
    return f'[[routes]]\npath = "/{name}/<item_id>"\n{more}{calls}'


def upstream(name: str, ports: Sequence[str | int], more: str = "") -> str:
    urls = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    return f"[upstreams.{name}]\nurls = [{urls}]\n{more}"
