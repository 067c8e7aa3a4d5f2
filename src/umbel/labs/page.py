"""The pages of the labs: text, style, script and data in one HTML document, which loads nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

import msgspec

from .document import as_document, text_of
from .model import PACKAGES, Lab, Run, all_labs

_NO_SCRIPT = "<noscript>This page draws its lab with a script of its own; please allow it.</noscript>"


@cache
def _part(name: str) -> str:
    return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")


def _page(title: str, body: str, scripts: str = "", connect: str = "") -> str:
    page = _part("page.html")
    parts = {"TITLE": escape(title), "STYLE": _part("page.css"), "CONNECT": connect, "BODY": body}
    # The scripts last: their data is not looked through for names of parts.
    for name, text in {**parts, "SCRIPTS": scripts}.items():
        page = page.replace(f"@{name}@", text, 1)
    return page


def _scripts(data: str) -> str:
    # In a script element only "<" can end it or begin a comment; in JSON it stands in strings only.
    safe = data.replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{safe}</script>\n<script>\n{_part("page.js")}</script>\n'


def _prose(text: str) -> str:
    """A text in which `code` stands between backticks, as HTML."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def _title(lab: Lab) -> str:
    return f"Lab {lab.number}: {lab.title}"


def page_of(lab: Lab, runs: Mapping[str, Run]) -> str:
    """Return the page of a lab with its runs, which needs no network: a file."""
    return _page(_title(lab), _NO_SCRIPT, _scripts(as_document(lab, runs)))


def live_page(lab: Lab) -> str:
    """Return the page of a lab as ``site.LabSite`` serves it: it asks for a run when the question is answered."""
    numbers = list(PACKAGES)
    at = numbers.index(lab.number)
    links = [("/", "All labs")]
    links += [(f"/{number}", f"Lab {number}") for number in (*numbers[max(at - 1, 0) : at], *numbers[at + 1 : at + 2])]
    nav = "".join(f'<a href="{address}">{text}</a>' for address, text in links)
    data = msgspec.json.encode(text_of(lab)).decode()
    return _page(_title(lab), f"<nav>{nav}</nav>{_NO_SCRIPT}", _scripts(data), "; connect-src 'self'")


def index_page() -> str:
    """Return the list of the labs, with links to their pages."""
    labs = "".join(
        f'<li><a href="/{lab.number}">{escape(_title(lab))}</a><br><span class="soft">{_prose(lab.phenomenon)}</span>'
        for lab in all_labs()
    )
    about = "Each lab runs one story as three programs: with asyncio.gather or create_task, with asyncio.TaskGroup, "
    about += "and with a trio nursery. It asks a question, runs them, and shows what their tasks did."
    return _page("Labs", f'<h1>Labs</h1><p>{about}</p><ul class="labs">{labs}</ul>')
