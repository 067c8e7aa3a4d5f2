"""The file ``recorded.json`` with the expected outcome of each case, and the comparison with an observed outcome.

Each case has one entry. ``answer`` is the response over ASGI in memory, and ``records`` are the application's records.
``over HTTP/1.1`` has the members that differ over Umbel's own server. They differ if the server refuses the request
itself, if the client leaves and can read nothing more, or if the framing says more about a body than ASGI does.

An entry leaves out:

- of a response over the server: the fields that the server adds (``SERVERS_FIELDS``);
- of a record: the task that made it and the bound fields, since an event names its request itself;
- of an event: members with their default value;
- of ``RequestEnded.calls``: outcomes that a ``CallEnded`` has too; only the call's name stays;
- of all events except ``RequestEnded``: the facts of the request if they are equal to those of ``RequestEnded``; only
  the request's id stays.

A body is shown as a JSON value if that value, encoded without blanks, gives the same bytes.
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
from .ways_to_ask import WAYS, Recorded, Way, outcome

FILE = Path(__file__).with_name("recorded.json")
SERVERS_FIELDS = ("date", "connection", "transfer-encoding")
"""Content-Length is not among them: the application sets it, and the server checks it against the body."""
OVER_SERVER = "over HTTP/1.1"
PART_MAX = 60
"""The bytes of a body part up to which the file shows the part; of a longer one it shows the length."""

_SHOWN = ("headers", "parts", "ends", "leaves_after", "client", "outside")

Entry = dict[str, Any]


def observed(way: Way, case: Case) -> Entry:
    """Run a case in this way and return its ``answer`` and ``records`` as JSON.

    The entry of a host that Quart refuses is that of Quart 0.22. From Quart 0.23 on, which needs Python 3.13, the
    response to such a host passes ``make_response``, and its record has the kind ``bad-request``.
    """
    answer, recorded = outcome(way, case)
    # Calls that end at the same time may be recorded in any order, so they are sorted. The request's record is last.
    shown = [_record(one, recorded) for one in recorded]
    if case.quart_refuses and sys.version_info >= (3, 13):
        ended = shown[-1]["RequestEnded"]
        kind = ended.pop("kind", None)
        assert kind == "bad-request"
    records = [*sorted(shown[:-1], key=lambda one: json.dumps(one)), *shown[-1:]]
    return {"answer": _answer(answer, way), "records": records}


def expected(way: Way, case: Entry) -> Entry:
    """Return the ``answer`` and ``records`` of an entry for this way."""
    result = {"answer": case["answer"], "records": case["records"]}
    if not way.over_server:
        return result
    return {**result, **case.get(OVER_SERVER, {})}


def difference(way: Way, case: Case, entry: Entry) -> list[str]:
    """Return a unified diff of the recorded and the observed outcome; empty if they are equal."""
    got, wanted = observed(way, case), expected(way, entry)
    if _are_same(got, wanted):
        return []
    return list(
        unified_diff(written(wanted).splitlines(), written(got).splitlines(), "recorded", way.name, lineterm="")
    )


def _are_same(one: Any, other: Any) -> bool:
    """Whether two values have the same JSON text: the order of members counts, and 1 differs from true."""
    return json.dumps(one) == json.dumps(other)


def load() -> list[Entry]:
    """Read the recorded entries, in the order of the cases."""
    entries: list[Entry] = json.loads(FILE.read_text(encoding="utf-8"))
    return entries


def record() -> str:
    """Return the content of the file for the present code."""
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
    """The members of an entry that describe the request for readers of the file."""
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
    # Only arrays and objects: a JSON string would look like a body of plain text.
    return value if is_same and isinstance(value, dict | list) else text(data)


def _record(record: Recorded, records: Sequence[Recorded]) -> Entry:
    return {type(record.event).__name__: _event(record.event, [one.event for one in records])}


def _event(event: Event, events: Sequence[Event]) -> Entry:
    shown: Entry = plain(event)
    if isinstance(event, RequestEnded):
        outcomes = [one.outcome for one in events if isinstance(one, CallEnded)]
        calls = [call.call if call in outcomes else plain(call) for call in event.calls]
        return {**shown, "calls": calls} if calls else shown
    facts: RequestFacts | None = event.request
    if facts is not None and any(isinstance(one, RequestEnded) and one.request == facts for one in events):
        shown["request"] = facts.request_id
    return shown
