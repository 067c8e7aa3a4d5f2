"""What each case is to get: ``recorded.json``, one entry per case, and how an outcome is compared with it.

In an entry ``answer`` is what a conversation in memory gets, and ``records`` what the application records of it.
``over HTTP/1.1`` holds what differs where our own server takes part: where the server refuses the request itself, where
a client that leaves can read nothing more, and where the framing tells more of a body than ASGI does.

Left out are:

- of an answer over a server the fields that the server adds: ``SERVERS_FIELDS``;
- of a record the task that made it, and what was bound in that: events name their request themselves.
- of an event the members that have their defaults; of ``calls`` the outcomes that a ``CallEnded`` shows, but for the
  call's name; and of others than ``RequestEnded`` the facts of the request where they are the same, but for its id.

A body is shown as a JSON value where that, written without blanks, is the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

from tests.support.server.asgi import Answer
from umbel.core.events import CallEnded, Event, RequestEnded
from umbel.core.model import RequestFacts

from .cases import CASES, Case
from .plain_json import plain, text, written
from .ways_to_ask import WAYS, Told, Way, outcome

FILE = Path(__file__).with_name("recorded.json")
SERVERS_FIELDS = ("date", "connection", "transfer-encoding")
"""Content-Length is not among them: the application says it, and the server holds it to the content."""
OVER_SERVER = "over HTTP/1.1"
PART_MAX = 60
"""Of what is longer only the length is shown."""

_SHOWN = ("headers", "parts", "ends", "leaves_after", "client", "outside")

Entry = dict[str, Any]


def observed(way: Way, case: Case) -> Entry:
    """What a case gets in this way, as JSON: ``answer`` and ``records``.

    A host that Quart refuses is recorded as with Quart 0.22. From 0.23 on, which runs on Python 3.13 and later, such an
    answer passes ``make_response``, and its record has the kind ``bad-request``.
    """
    answer, told = outcome(way, case)
    # Calls that end at the same moment may be recorded in any order; the request comes last.
    shown = [_told(one, told, way) for one in told]
    if case.quart_refuses and sys.version_info >= (3, 13):
        ended = shown[-1]["RequestEnded"]
        kind = ended.pop("kind", None)
        assert kind == "bad-request"
    records = [*sorted(shown[:-1], key=lambda one: json.dumps(one)), *shown[-1:]]
    return {"answer": _answer(answer, way), "records": records}


def expected(way: Way, case: Entry) -> Entry:
    """What an entry says for this way."""
    result = {"answer": case["answer"], "records": case["records"]}
    if not way.over_server:
        return result
    return {**result, **case.get(OVER_SERVER, {})}


def difference(way: Way, case: Case, entry: Entry) -> list[str]:
    """The lines in which what a case gets in this way differs from its entry; none if it is the same."""
    got, wanted = observed(way, case), expected(way, entry)
    if _are_same(got, wanted):
        return []
    return list(
        unified_diff(written(wanted).splitlines(), written(got).splitlines(), "recorded", way.name, lineterm="")
    )


def _are_same(one: Any, other: Any) -> bool:
    """Whether two values are the same as JSON texts: the order of members counts, and 1 is not true."""
    return json.dumps(one) == json.dumps(other)


def load() -> list[Entry]:
    """The recorded entries, in the order of the cases."""
    entries: list[Entry] = json.loads(FILE.read_text(encoding="utf-8"))
    return entries


def record() -> str:
    """The content of the file as the present code answers."""
    (in_memory, *_), (over_server, *_) = (
        [way for way in WAYS if way.over_server is server] for server in (False, True)
    )
    entries: list[Entry] = []
    for case in CASES:
        entry: Entry = {**asked(case), **observed(in_memory, case)}
        if over_server.takes(case):
            usual = expected(over_server, entry)
            differs = {n: one for n, one in observed(over_server, case).items() if not _are_same(one, usual[n])}
            if differs:
                entry[OVER_SERVER] = differs
        entries.append(entry)
    return written(entries)


def asked(case: Case) -> Entry:
    """The members of an entry that say what was asked, for people."""
    shown = plain(case)
    if "parts" in shown:
        shown["parts"] = [part if len(part) <= PART_MAX else f"{len(part)} bytes" for part in shown["parts"]]
    return {"request": case.title, **{name: one for name, one in shown.items() if name in _SHOWN}}


def _answer(answer: Answer, way: Way) -> Entry:
    fields = [[n, v] for n, v in answer.headers if not (way.over_server and n in SERVERS_FIELDS)]
    return {"status": answer.status, "fields": fields, "body": _body(answer.body), "complete": answer.complete}


def _body(data: bytes) -> Any:
    try:
        value = json.loads(data)
        is_same = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() == data
    except ValueError:
        return text(data)
    # A JSON string would look like a body that is text.
    return value if is_same and isinstance(value, dict | list) else text(data)


def _told(told: Told, beside: Sequence[Told], way: Way) -> Entry:
    # What is bound when a record is made says nothing: events name their request themselves.
    return {type(told.event).__name__: _event(told.event, [one.event for one in beside])}


def _event(event: Event, beside: Sequence[Event]) -> Entry:
    shown: Entry = plain(event)
    if isinstance(event, RequestEnded):
        told = [one.outcome for one in beside if isinstance(one, CallEnded)]
        calls = [call.call if call in told else plain(call) for call in event.calls]
        return {**shown, "calls": calls} if calls else shown
    facts: RequestFacts | None = event.request
    if facts is not None and any(isinstance(one, RequestEnded) and one.request == facts for one in beside):
        shown["request"] = facts.request_id
    return shown
