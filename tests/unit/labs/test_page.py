"""The HTML form of a lab: one file, nothing from elsewhere, data that cannot leave its element."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from tests.unit.labs.runs import lab, runs
from umbel.labs.document import as_document
from umbel.labs.page import page_of


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.seen and self.seen[-1][1].get("id") == "data":
            self.data += data


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = page_of(lab(), runs())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert [attributes.get("src") or attributes.get("href") for _, attributes in Elements(page).seen if
            {"src", "href"} & set(attributes)] == ["data:,"]  # fmt: skip
    assert "default-src 'none'" in page


def test_text_of_a_lab_and_of_its_programs_does_not_end_the_data() -> None:
    hostile = replace(lab(), title="</script><b>&", question="<!-- @DATA@")
    page = Elements(page_of(hostile, runs()))
    assert [tag for tag, _ in page.seen].count("script") == 2
    assert "b" not in [tag for tag, _ in page.seen]
    document = json.loads(page.data)
    assert document["title"] == "</script><b>&"
    assert document["columns"][0]["notes"][0]["text"] == "502 <b>&"


def test_the_document_has_figures_rows_and_changes_of_the_running_count() -> None:
    document = json.loads(as_document(lab(), runs()))
    first, second, _ = document["columns"]
    assert (first["figure"], second["figure"]) == ("2", "0")
    assert [(row["bar"]["name"], row["count"]) for row in first["rows"]] == [("page", 1), ("call", 2)]
    assert second["running"] == [[0.0, 2], [1.0, 0]]
    assert first["source"].startswith('"""A page of six upstream calls')
