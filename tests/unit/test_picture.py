"""``tools/picture.py``: the picture shows a request's timings, and the file in docs is such a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from tools.picture import PICTURE, Traced, draw

from umbel.core.events import RequestEnded
from umbel.core.failure_kinds import Kind
from umbel.core.model import Failure, Outcome, RequestFacts, Trace

SVG = "{http://www.w3.org/2000/svg}"


def traced() -> Traced:
    facts = RequestFacts("id", Trace("1" * 32), "GET", "/r", "/r", 10.0)
    calls = [
        Outcome("quick", "value", value=1, started_at=10.0, ended_at=10.1),
        Outcome("late", "failed", failure=Failure(Kind.TIMEOUT, 504, "it was late"), started_at=10.1, ended_at=10.5),
    ]
    return Traced("GET /r", RequestEnded(facts, 200, ended_at=10.5, completed=False), calls)


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(svg).iter(f"{SVG}text")]


def test_each_call_is_shown_with_its_name_duration_and_failure() -> None:
    assert texts(draw([traced()])) == [
        "GET /r", "response", "partial after 500 ms", "quick", "100 ms", "late", "400 ms (timeout)"
    ]  # fmt: skip


def test_bars_begin_and_end_in_proportion_to_time() -> None:
    bars = [each for each in ET.fromstring(draw([traced()])).iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    quick, late = [(float(each.attrib["x"]), float(each.attrib["width"])) for each in bars]
    assert quick[1] * 4 == pytest.approx(late[1], abs=0.5)
    assert quick[0] + quick[1] == pytest.approx(late[0], abs=0.2)


def test_the_picture_in_docs_shows_the_calls_of_the_demo() -> None:
    said = texts(PICTURE.read_text(encoding="utf-8"))
    for name in ("profile", "orders", "items", "offers"):
        assert said.count(name) == 2
    assert sum(each.startswith(("complete after", "partial after")) for each in said) == 2
