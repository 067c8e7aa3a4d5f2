"""The screen of ``umbel top``: samples of the admin side as lines of text, and their output on a terminal."""

from __future__ import annotations

import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ....observe.tree.text import duration
from ..ctl import WORKER_COLUMNS, worker_rows
from ..tables import cut, plain, short_time, table

ROWS_MAX = 10
"""The bound on rows of each table but that of the workers."""
_PROCESS = ("STATE", "PID", "UP", "LAG", "MEMORY", "TASKS", "REQUESTS", "BUSY", "STREAMS", "CONNS")
_ROUTES = ("ROUTE", "REQ/S", "ERRORS", "PARTIAL", "P50", "P95", "P99", "OWN P50")
_UPSTREAMS = ("UPSTREAM", "ATTEMPTS/S", "ERRORS", "P50", "P95", "P99", "IN USE", "WAITING", "BREAKER")
_REQUESTS = ("FOR", "LEFT", "REQUEST", "CALLS", "PROCESS", "ID")
_TASKS = ("COUNT", "TASK", "WAITS FOR", "AT", "PROCESS")
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The second screen of the terminal without a cursor, and the way back."""
_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
_BOLD, _NORMAL = "\x1b[1m", "\x1b[0m"


def lines_of(samples: Mapping[str, Any], *, keys: bool = False) -> list[str]:
    """The lines of a screen. Parts whose topic has sent nothing are left out.

    ``keys``: whether the first line says how to leave.
    """
    lines = [_head(samples.get("workers"), keys=keys)]
    for title, part in (
        ("workers", _workers),
        ("lints", _lints),
        ("routes", _routes),
        ("upstreams", _upstreams),
        ("tree", _requests),
        ("tree", _tasks),
    ):
        if title in samples and (shown := part(samples[title])):
            lines += ["", *shown]
    return list(map(plain, lines))


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """The lines that a terminal of this size shows; the last one says how many are left out."""
    if len(lines) > rows:
        lines = [
            *lines[: rows - 1],
            f"… {len(lines) - rows + 1} more lines: make the terminal higher, or umbel top --once",
        ]
    return [cut(line, columns) for line in lines]


@contextmanager
def whole_screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Context manager: use the whole terminal. Gives a function that draws lines; afterwards the terminal is as before.

    Keys are read without Enter and without echo, if stdin is a terminal.
    """
    before = None
    if sys.stdin.isatty():
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
    sys.stdout.write(_ENTER)
    try:
        yield _draw
    finally:
        with suppress(OSError):  # The terminal may be gone.
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            if before is not None:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _draw(lines: Sequence[str]) -> None:
    shown = [f"{_BOLD}{line}{_NORMAL}" if line[:2].isupper() else line for line in lines]
    sys.stdout.write(_HOME + "\r\n".join(f"{line}{_TO_END_OF_LINE}" for line in shown) + _TO_END)
    sys.stdout.flush()


def _head(workers: Mapping[str, Any] | None, *, keys: bool) -> str:
    state = "waiting for the first sample"
    if workers is not None:
        head = workers.get("master") or workers["process"]
        state = f"{head['state']}: {head['summary']}, up {short_time(head['uptime_s'])}"
    return f"umbel top  {time.strftime('%H:%M:%S')}  {state}" + ("  (q ends)" if keys else "")


def _workers(status: dict[str, Any]) -> list[str]:
    if "slots" in status:
        return table(WORKER_COLUMNS, worker_rows(status)).splitlines()
    process, server = status["process"], status.get("server", {})
    numbers = ("requests_total", "requests_in_flight", "streams", "connections")
    row = [
        *(process["state"], str(process["pid"]), short_time(process["uptime_s"]), duration(process["lag_s"])),
        *(f"{process['rss'] / 2**20:.0f} MiB", str(process["tasks"])),
        *(str(server.get(name, "")) for name in numbers),
    ]
    return table(_PROCESS, [row]).splitlines()


def _lints(sample: Mapping[str, Any]) -> list[str]:
    lints = sorted(sample["lints"], key=lambda lint: (not lint["ongoing"], lint["last"]))
    if not lints:
        return ["LINTS: none"]
    lines = [f"LINTS: {len(lints)}"]
    for lint in lints[:ROWS_MAX]:
        when = "now" if lint["ongoing"] else f"{duration(lint['last'])} ago, {lint['count']}x"
        where = f": {lint['where']}" if lint["where"] else ""
        lines.append(f"  {lint['process']}  {lint['title']}{where} ({lint['detail']}; {when})")
    return lines + _more(len(lints))


def _routes(sample: Mapping[str, Any]) -> list[str]:
    window, rows = sample["window_s"], []
    for each in sample["routes"][:ROWS_MAX]:
        late = each["recent"] or each["total"]
        rows.append(
            [
                each["route"] or "(no route)",
                _rate(each["recent"] and each["recent"]["requests"], window),
                _share(late["errors"], late["requests"]),
                _share(late["partial"], late["answers"]),
                *(_ms(late[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "own_p50_ms")),
            ]
        )
    return [*table(_ROUTES, rows).splitlines(), *_more(len(sample["routes"]))] if rows else []


def _upstreams(sample: Mapping[str, Any]) -> list[str]:
    window, rows = sample["window_s"], []
    for each in sample["upstreams"][:ROWS_MAX]:
        late, bulkhead = each["recent"] or each["total"], each["bulkhead"]
        rows.append(
            [
                each["name"],
                _rate(each["recent"] and sum(each["recent"]["attempts"].values()), window),
                _share(late["errors"], late["answered"]),
                *(_ms(late[name]) for name in ("p50_ms", "p95_ms", "p99_ms")),
                f"{bulkhead['in_use']:g}/{bulkhead['limit']:g}",
                f"{bulkhead['waiting']:g}",
                each["breaker"] or "",
            ]
        )
    return [*table(_UPSTREAMS, rows).splitlines(), *_more(len(sample["upstreams"]))] if rows else []


def _requests(sample: Mapping[str, Any]) -> list[str]:
    """The requests in flight that take longest."""
    found = []
    for process, task in _tasks_in(sample):
        if (request := task.get("request")) is not None:
            calls = [each for each in _calls_below(task) if each["state"] in ("running", "queued", "pause", "shared")]
            found.append((request["age"], request, calls, process))
    found.sort(key=lambda each: -each[0])
    rows = [
        [
            duration(age),
            "" if request.get("left") is None else duration(request["left"]),
            cut(f"{request['method']} {request['path']}", 60),
            cut(", ".join(f"{call['name']} {call['state']}" for call in calls), 60),
            process,
            request["id"],
        ]
        for age, request, calls, process in found[:ROWS_MAX]
    ]
    return [*table(_REQUESTS, rows).splitlines(), *_more(len(found))] if rows else []


def _tasks(sample: Mapping[str, Any]) -> list[str]:
    """The tasks of which there are most, by name, what they wait for, and where."""
    counts: dict[tuple[str, str, str, str], int] = {}
    for process, task in _tasks_in(sample):
        waits = task.get("waits") or task["state"]
        key = task["name"], waits, task.get("at", ""), process
        counts[key] = counts.get(key, 0) + task.get("count", 1)
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    rows = [[str(count), cut(_short(name), 50), waits, at, process] for (name, waits, at, process), count in most]
    blocked = [
        f"{tree['process']} has been blocked for {duration(tree['blocked']['seconds'])}"
        + (f" at {tree['blocked']['at']}" if tree["blocked"].get("at") else "")
        for tree in sample["trees"]
        if tree.get("blocked")
    ]
    return [*blocked, *table(_TASKS, rows[:ROWS_MAX]).splitlines(), *_more(len(rows))] if rows or blocked else []


def _tasks_in(sample: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each task of the trees with the name of its process; of a fold only the one that stands for all."""
    for tree in sample["trees"]:
        todo = [tree["root"]] if tree.get("root") else []
        while todo:
            task = todo.pop()
            yield tree["process"], task
            todo += [child for nursery in task.get("nurseries", ()) for child in nursery.get("tasks", ())]


def _calls_below(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The calls of a task, and those of the tasks below it."""
    calls = list(task.get("calls", ()))
    for nursery in task.get("nurseries", ()):
        for child in nursery.get("tasks", ()):
            calls += _calls_below(child)
    return calls


def _short(name: str) -> str:
    return ".".join(name.replace("<locals>.", "").split(".")[-2:])


def _more(count: int) -> list[str]:
    return [f"  and {count - ROWS_MAX} more"] if count > ROWS_MAX else []


def _rate(count: float | None, window: float | None) -> str:
    return "" if count is None or not window else f"{count / window:.1f}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"
