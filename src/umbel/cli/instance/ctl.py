"""``umbel ctl``: shows the state of a running instance, and controls it. It prints tables and sentences for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..options import allow_empty_option
from .admin_client import AdminClient, with_admin
from .tables import short_time, table

WORKER_COLUMNS = (
    *("SLOT", "STATE", "PID", "GEN", "UP", "REQUESTS", "BUSY", "STREAMS", "CONNS"),
    *("LAG", "MEMORY", "RESTARTS", "LAST EXIT"),
)
_AUTH_COLUMNS = ("AUTH", "KIND", "SOURCE", "STATE", "KEYS", "AGE", "TOKENS", "LAST ERROR")
_LIMIT_COLUMNS = ("LIMIT", "SHARED", "KEYS", "ADMITTED", "REFUSED", "EVICTED", "WAITING", "DELAYED")


@click.group(short_help="Show the state of a running instance, and control it.")
def ctl() -> None:
    """Show the state of a running instance, and control it, over the Unix socket of its admin side.

    Most commands need a master (umbel serve -w N); status, tree, url, reopen, log-level and stop do not. The socket is
    found in $RUNTIME_DIRECTORY, else in the directory of the logs.

    Exit status: 0 if the command was carried out; 1 if it was refused or there is no answer, with the reason.
    """


def _command(function: Callable[..., None]) -> click.Command:
    return ctl.command()(with_admin(function))


@_command
def status(admin: AdminClient) -> None:
    """Show the master, its slots and their workers; without a master the process.

    A worker is silent if its heartbeat is late: its event loop is blocked, or the process is stopped. BUSY is the
    number of requests in flight, CONNS that of open connections. LAG is the lateness of the last heartbeat, which shows
    for how long the event loop was blocked; of a silent worker, the time since its last message. GEN says with which
    reading of the configuration the worker was started, counted from 1.

    Below are the sections of [auth] with their keys: the worst state (ok, failing or none) and the fewest keys of all
    workers, the age of the oldest, and how many verified tokens are remembered.
    """
    answer = admin.get("/status")
    if not admin.as_json:
        click.echo(_status(answer))


@_command
@click.argument("workers", type=click.IntRange(1))
def scale(admin: AdminClient, workers: int) -> None:
    """Set the number of workers.

    The number holds until it is set again or the master ends.
    """
    answer = admin.command("scale", count=workers)
    admin.say(f"{answer.get('size')} workers from now on")


@_command
@allow_empty_option
def reload(admin: AdminClient, allow_empty: bool) -> None:
    """Replace all workers, and wait until it is done.

    Configuration, certificates and code are read again. If a new worker does not become ready, the reload is aborted
    and the old workers serve on.
    """
    answer = admin.command("reload", allow_empty=allow_empty)
    admin.say(f"reloaded: all workers are of generation {answer.get('generation')}")


@_command
@click.argument("slot", type=int)
def drain(admin: AdminClient, slot: int) -> None:
    """Replace the worker of SLOT.

    The old worker drains after its successor is ready. Does not wait for that.
    """
    admin.command("drain", slot=slot)
    admin.say(f"the worker of slot {slot} drains as soon as its successor is ready")


@_command
@click.argument("slot", type=int)
def kill(admin: AdminClient, slot: int) -> None:
    """Kill the worker of SLOT (SIGKILL). The master restarts it as after a crash."""
    answer = admin.command("kill", slot=slot)
    admin.say(f"killed process {answer.get('pid')}")


@_command
def reopen(admin: AdminClient) -> None:
    """Reopen the log files of all processes.

    Waits until all have done so; fails if a process needs more than 5 s.
    """
    answer = admin.command("reopen")
    workers = answer.get("workers")
    admin.say("the log files are reopened" if workers is None else f"{workers} workers have reopened their log files")


@_command
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error", "critical"]))
def log_level(admin: AdminClient, level: str) -> None:
    """Set the lowest level that the log app records, in all workers.

    It holds until it is set again or the configuration is reloaded.
    """
    admin.command("log-level", level=level)
    admin.say(f"the level of the log app is {level}")


@_command
@click.option("--quick", is_flag=True, help="Cancel requests in flight, so that the stop takes at most 2 s.")
def stop(admin: AdminClient, quick: bool) -> None:
    """Stop the instance. Does not wait for the end.

    Requests in flight may take up to graceful_timeout.
    """
    admin.command("stop", quick=quick)
    admin.say("stopping")


@_command
def tree(admin: AdminClient) -> None:
    """Show the live tasks of all processes.

    They are shown as trees: each task below the task whose nursery it runs in.
    """
    import msgspec

    from ...observe.tree.nodes import ProcessTree
    from ...observe.tree.text import tree_lines

    answer = admin.get("/tree")
    for each in answer["trees"]:
        for line in tree_lines(msgspec.convert(each, ProcessTree)):
            admin.say(line)


@_command
def url(admin: AdminClient) -> None:
    """Print a new URL of the page for a browser, which is valid once and for ten minutes.

    Needs an address for the page: bind in [admin], or an instance that was started on a terminal.
    """
    answer = admin.command("url")
    admin.say(str(answer["url"]))


def _status(answer: dict[str, Any]) -> str:
    if "process" in answer:
        return _process(answer)
    master = answer["master"]
    head = [
        f"{master['state']}: {master['summary']}",
        f"master {master['pid']}, up {short_time(master['uptime_s'])}, generation {master['generation']}, "
        f"on {' and '.join(master['addresses'])}",
        "",
    ]
    rows = worker_rows(answer)
    return "\n".join([*head, table(WORKER_COLUMNS, rows), *_auth(answer), *_limits(answer)])


def _process(answer: dict[str, Any]) -> str:
    process, server = answer["process"], answer.get("server", {})
    lines = [f"{process['state']}: {process['summary']}"]
    lines.append(f"process {process['pid']}, up {short_time(process['uptime_s'])}, without a master")
    if server:
        busy, streams = f"{server['requests_in_flight']} in flight", f"{server.get('streams', 0)} streams"
        lines.append(f"{server['requests_total']} requests, {busy}, {streams}, {server['connections']} connections")
    return "\n".join([*lines, *_auth(answer), *_limits(answer)])


def _auth(answer: dict[str, Any]) -> list[str]:
    """The lines about the sections of ``[auth]``."""
    from ...admin.auth_rows import auth_rows

    rows = [
        [
            *(row.name, row.kind, row.source, row.state, str(row.keys) if row.source else ""),
            *("" if row.age is None else short_time(row.age), str(row.cached_tokens) if row.kind == "jwt" else ""),
            row.last_error,
        ]
        for row in auth_rows(answer)
    ]
    return ["", table(_AUTH_COLUMNS, rows)] if rows else []


def _limits(answer: dict[str, Any]) -> list[str]:
    """The lines about the sections of ``[limits]``."""
    from ...admin.limit_rows import limit_rows

    rows = [list(map(str, row)) for row in limit_rows(answer)]
    return ["", table(_LIMIT_COLUMNS, rows)] if rows else []


def worker_rows(answer: dict[str, Any]) -> list[list[str]]:
    """The rows of ``WORKER_COLUMNS`` of the status of a master."""
    return [row for slot in answer["slots"] for row in _rows(slot)]


def _rows(slot: dict[str, Any]) -> list[list[str]]:
    own = [str(slot["restarts"]), slot["last_exit"] or ""]
    if not slot["workers"]:
        return [[str(slot["slot"]), slot["state"], *[""] * 9, *own]]
    return [[str(slot["slot"]), *_worker(worker), *own] for worker in slot["workers"]]


def _worker(worker: dict[str, Any]) -> list[str]:
    words = [worker["state"], str(worker["pid"]), str(worker["generation"]), short_time(worker["uptime"])]
    beat = worker["beat"]
    if beat is None:
        return [*words, *[""] * 6]
    numbers = [str(beat.get(name, 0)) for name in ("requests", "inflight", "streams", "connections")]
    lag = 1000 * worker["beat_age"] if worker["state"] == "silent" else beat.get("lag_ms", 0)
    return [*words, *numbers, f"{lag:.0f} ms", f"{beat.get('rss', 0) / 2**20:.0f} MiB"]
