"""Each way to answer a request gives the recorded response: status, ordered fields, body, records, bound log fields."""

from __future__ import annotations

import pytest

from tests.support.gateway.answers import recorded
from tests.support.gateway.answers.cases import CASES, Case
from tests.support.gateway.answers.plain_json import written
from tests.support.gateway.answers.ways_to_ask import WAYS

ENTRIES = recorded.load()
ASKED = [
    pytest.param(case, entry, id=f"{case.method} {case.target!r} {number}")
    for number, (case, entry) in enumerate(zip(CASES, ENTRIES, strict=True))
]


@pytest.mark.parametrize(("case", "entry"), ASKED)
def test_each_way_gives_the_recorded_response(case: Case, entry: recorded.Entry) -> None:
    # ``python -m tests.support.gateway.record_answers`` records the present responses.
    differences = [line for way in WAYS if way.takes(case) for line in recorded.difference(way, case, entry)]
    assert not differences, "\n".join(differences)


def test_the_recorded_responses_match_the_cases_and_the_commands_format() -> None:
    for case, entry in zip(CASES, ENTRIES, strict=True):
        asked = recorded.asked(case)
        assert {name: entry[name] for name in asked} == asked
    assert recorded.FILE.read_text(encoding="utf-8") == written(ENTRIES)
