"""``umbel slow``: the kept requests of a running instance, and the waterfall of one of them in the terminal."""

from __future__ import annotations

import shutil
import time
from typing import Any
from urllib.parse import quote

import click

from .admin_client import AdminClient, with_admin
from .tables import cut, plain, table

_COLUMNS = ("ID", "AT", "TOOK", "BUCKET", "STATUS", "OUTCOME", "REQUEST", "REASON")
_REASON_CHARS = 60
_WIDTH_MIN, _WIDTH_MAX = 60, 160
_SHOWN = {"queue": ".", "dns": "n", "connect": "c", "tls": "t", "wait": "-", "body": "="}
"""The character of each phase."""


@click.command(short_help="Show slow and failed requests of a running instance.")
@click.argument("request", required=False, metavar="[ID]")
@click.option("--route", help="Only requests of this route, as the list shows it.")
@click.option("--bucket", help='Only requests of this bucket, such as "error", "partial" or "1 s".')
@with_admin
def slow(admin: AdminClient, request: str | None, route: str | None, bucket: str | None) -> None:
    """Show slow and failed requests of a running instance.

    Without an ID, list the requests that the instance keeps: some of each route and bucket. A bucket is how long the
    requests took (from 0, 50, 100, 200 and 500 ms, 1 s, 10 s), partial, or error.

    With an ID of the list, show the waterfall of that request: a lane for each call and attempt. A lane is drawn with
    . waiting for a place, n name resolution, c connect, t TLS, - waiting for the response, = its body, and x where
    the attempt was cancelled; | is the deadline. An asterisk marks the critical path: what the answer waited for.

    Exit status: 0 if there is an answer, else 1.
    """
    if request is not None:
        answer = admin.get(f"/slow/{quote(request, safe='')}")
        if not admin.as_json:
            width = min(max(shutil.get_terminal_size().columns, _WIDTH_MIN), _WIDTH_MAX)
            click.echo("\n".join(waterfall(answer["timeline"], width)))
        return
    answer = admin.get("/slow")
    if not admin.as_json:
        click.echo("\n".join(_list(answer, route, bucket)))


def _list(answer: dict[str, Any], route: str | None, bucket: str | None) -> list[str]:
    rows = [
        [
            each["id"],
            time.strftime("%H:%M:%S", time.localtime(each["received"])),
            _ms(each["duration_ms"]),
            each["bucket"],
            str(each["status"]),
            each["outcome"],
            plain(f"{each['method']} {each['path']}"),
            cut(plain(each["reason"]), _REASON_CHARS),
        ]
        for each in answer["requests"]
        if route in (None, each["route"]) and bucket in (None, each["bucket"])
    ]
    lines = [table(_COLUMNS, rows)] if rows else ["no such request is kept"]
    if answer["dropped"]:
        lines.append(f"{answer['dropped']} more were dropped, because the kept requests took too much memory")
    lines += [f"{process} has not answered: its event loop is probably blocked" for process in answer["silent"]]
    return lines


def waterfall(timeline: dict[str, Any], width: int) -> list[str]:
    """The lines of a timeline (``observe.timeline.Timeline`` as plain data), without control characters.

    ``width``: for how many characters names and lanes are made; a long reason behind a lane goes beyond.
    """
    title = f"{timeline['method']} {timeline['path']}  {timeline['status']} {timeline['outcome']}"
    about = f"route {timeline['route'] or '(none)'}, request_id {timeline['request_id']}, trace {timeline['trace_id']}"
    lines = [plain(f"{title} in {_ms(timeline['duration_ms'])}"), plain(about)]
    if timeline["reason"]:
        lines.append(plain(timeline["reason"]))
    lanes = [lane for call in timeline["calls"] for lane in _lanes(call)]
    names = [f"{'*' if lane['critical'] else ' '} {lane['indent']}{lane['name']}" for lane in lanes]
    name_width = min(max(map(len, names), default=0), width // 3)
    scale = _Scale(timeline, lanes, max(width - name_width - 12, 10) * 2 // 3)
    lines += ["", f"{'':{name_width}} {scale.axis()}"]
    for lane, name in zip(lanes, names, strict=True):
        took = "-" if lane["start"] is None else _ms(lane["end"] - lane["start"])
        lines.append(f"{cut(name, name_width):{name_width}} {scale.drawn(lane)} {took:>9} {lane['note']}")
    if timeline["deadline_ms"] is not None:
        is_later = timeline["duration_ms"] > timeline["deadline_ms"]
        missed = "nothing was cut, but the answer ended later" if is_later else "not reached"
        said = "reached" if timeline["deadline_reached"] else missed
        lines += ["", f"deadline {_ms(timeline['deadline_ms'])} ({said})"]
    if timeline["calls_total"] > len(timeline["calls"]):
        lines.append(f"{timeline['calls_total'] - len(timeline['calls'])} shorter calls are left out")
    return [line.rstrip() for line in lines]


def _lanes(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The lane of a call, and below it those of its attempts."""
    note = call["outcome"] if call["outcome"] != "failed" else f"failed: {call['kind']}"
    if call["outcome"] in ("failed", "cancelled") and call["reason"]:
        note += f" ({call['reason']})"
    if call["needs"]:
        note += f", needs {', '.join(call['needs'])}"
    own = {"start": call["start_ms"], "end": call["end_ms"], "critical": call["critical"], "cancelled": False}
    lanes = [{**own, "name": plain(call["name"]), "indent": "", "note": plain(note), "phases": ()}]
    for each in call["attempts"]:
        item = "" if each["item"] is None else f" item {each['item']}"
        note = str(each["status"] or each["kind"])
        if each["outcome"] != "ok":
            note = f"{each['outcome']}: {each['reason']}"
        if each["coalesced"]:
            note += ", shared with another request"
        lanes.append(
            {
                "start": min([each["start_ms"], *(phase["start_ms"] for phase in each["phases"])]),
                "end": each["end_ms"],
                "critical": each["critical"],
                "cancelled": each["outcome"] == "cancelled",
                "name": plain(f"{each['cause']}{item} {each['replica']}"),
                "indent": "  ",
                "note": plain(note),
                "phases": each["phases"],
            }
        )
    hidden = call["attempts_total"] - len(call["attempts"])
    if hidden:
        lanes[0]["note"] += f", {hidden} shorter attempts are left out"
    return lanes


class _Scale:
    """Draws lanes over the time of a request, in ``width`` characters."""

    def __init__(self, timeline: dict[str, Any], lanes: list[dict[str, Any]], width: int) -> None:
        self._start = min([0.0, *(lane["start"] for lane in lanes if lane["start"] is not None)])
        ends = [timeline["duration_ms"], *(lane["end"] for lane in lanes)]
        self._deadline: float | None = timeline["deadline_ms"]
        if self._deadline is not None and self._deadline <= 1.2 * max(ends):
            ends.append(self._deadline)
        self._length = max(max(ends) - self._start, 0.001)
        self._width = width

    def _place(self, at: float) -> int:
        return min(max(int((at - self._start) / self._length * self._width), 0), self._width - 1)

    def axis(self) -> str:
        """The line above the lanes, with the first and the last time."""
        first, last = _ms(self._start), _ms(self._start + self._length)
        return f"{first}{last:>{max(self._width - len(first), 0)}}"

    def drawn(self, lane: dict[str, Any]) -> str:
        """One lane: its phases, ``x`` at the end of a cancelled one, and the deadline."""
        cells = [" "] * self._width
        if lane["start"] is not None:
            self._fill(cells, lane["start"], lane["end"], "#" if not lane["phases"] else "-")
            for phase in lane["phases"]:
                self._fill(cells, phase["start_ms"], phase["end_ms"], _SHOWN.get(phase["name"], "-"))
            if lane["cancelled"]:
                cells[self._place(lane["end"])] = "x"
        if self._deadline is not None and self._deadline <= self._start + self._length:
            place = self._place(self._deadline)
            if cells[place] == " ":
                cells[place] = "|"
        return "".join(cells)

    def _fill(self, cells: list[str], start: float, end: float, shown: str) -> None:
        for place in range(self._place(start), self._place(end) + 1):
            cells[place] = shown


def _ms(milliseconds: float) -> str:
    if abs(milliseconds) >= 10_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if abs(milliseconds) >= 100 else f"{milliseconds:.1f} ms"
