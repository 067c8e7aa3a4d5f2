"""The pages of the admin side: the state of the processes, and the form that asks for the token.

The state is what a browser without JavaScript shows; with it, the script of the console hides the tables and shows its
views (``console/README.md``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from html import escape
from typing import Any

from .auth_rows import AuthRow, auth_rows
from .limit_rows import limit_rows

_LINKS = ("/status", "/tree", "/metrics", "/readyz")
_AUTH_COLUMNS = ("section", "kind", "source", "state", "keys", "age (s)", "remembered tokens", "last error")
_LIMIT_COLUMNS = ("section", "shared by", "keys", "admitted", "refused", "evicted", "waiting", "delayed")
_WORKER_COLUMNS = (
    *("slot", "state", "pid", "generation", "uptime (s)", "last message (s)"),
    *("requests", "in flight", "streams", "restarts", "last exit"),
)


def status_page(status: Mapping[str, Any], topics: Iterable[str] = (), paths: Collection[str] = _LINKS) -> bytes:
    """Make the page of a source's ``status()``, with the console for its ``topics``; without topics no console.

    ``paths`` are those that are served: the page links to pages among them, and its buttons are their commands.
    """
    head: Mapping[str, Any] = status.get("master") or status.get("process") or {}
    title = f"Umbel: {head.get('state', '')}"
    parts = [f"<h1>{_text(title)}</h1>", f"<p>{_text(head.get('summary', ''))}</p>"]
    facts = [(name, value) for name, value in head.items() if isinstance(value, str | int | float)]
    parts.append(_table(("", ""), facts))
    if "slots" in status:
        parts += ["<h2>Workers</h2>", _table(_WORKER_COLUMNS, _worker_rows(status["slots"]))]
    if auth := auth_rows(status):
        parts += ["<h2>Authentication</h2>", _table(_AUTH_COLUMNS, map(_auth_cells, auth))]
    if limits := limit_rows(status):
        parts += ["<h2>Limits</h2>", _table(_LIMIT_COLUMNS, limits)]
    links = "".join(f'<li><a href="{path}">{path}</a></li>' for path in _LINKS if path in paths)
    parts.append(f"<ul>{links}</ul>")
    commands = sorted(path.removeprefix("/ctl/") for path in paths if path.startswith("/ctl/"))
    return _document(title, "".join(parts), " ".join(topics), " ".join(commands))


def token_page(detail: str) -> bytes:
    """Make the page that asks for the token; ``detail`` says why."""
    form = (
        '<form action="/" method="get"><label>Token <input name="token" type="password" autocomplete="off" required>'
        "</label> <button>Open</button></form>"
    )
    return _document("Umbel", f"<h1>Umbel: admin side</h1><p>{_text(detail)}</p>{form}")


def _worker_rows(slots: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Any, ...]]:
    for slot in slots:
        own = slot["restarts"], slot["last_exit"] or ""
        if not slot["workers"]:
            yield slot["slot"], slot["state"], *[""] * 7, *own
        for worker in slot["workers"]:
            beat = worker["beat"] or {}
            numbers = beat.get("requests", ""), beat.get("inflight", ""), beat.get("streams", "")
            age = "" if worker["beat_age"] is None else round(worker["beat_age"], 1)
            process = worker["pid"], worker["generation"], round(worker["uptime"]), age
            yield slot["slot"], worker["state"], *process, *numbers, *own


def _auth_cells(row: AuthRow) -> tuple[Any, ...]:
    age = "" if row.age is None else round(row.age)
    return row.name, row.kind, row.source, row.state, row.keys, age, row.cached_tokens, row.last_error


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _document(title: str, body: str, topics: str = "", commands: str = "") -> bytes:
    script = '<script type="module" src="/console/main.js"></script>' if topics else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(title)}</title><link rel="stylesheet" href="/console/style.css">'
        '<link rel="stylesheet" href="/console/traffic.css">'
        f'<link rel="icon" href="/console/icon.svg">{script}</head>'
        f'<body data-topics="{_text(topics)}" data-commands="{_text(commands)}">'
        f'<div id="fallback">{body}</div></body></html>\n'
    ).encode()


def _text(value: object) -> str:
    return escape(str(value))
