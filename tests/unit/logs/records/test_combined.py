"""The combined format: exact lines, escaping of hostile values, bounds, secrets, and reading."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.logs.event_factories import request_ended, request_facts
from umbel.core.diagnostics.redact import Redactor
from umbel.core.http.client_head import ClientHead, client_head
from umbel.logs.records.combined import CombinedLines, record_of, time_of

AT_NS = 1_796_033_640 * 10**9
"""30 November 2026, 10:14:00 UTC."""
COMBINED = re.compile(rb'(\S+) - - \[([^\]\n]+)\] "([^"\n]*)" (\d{3}) (\d+) "([^"\n]*)" "([^"\n]*)"')
"""The pattern of common log analysers."""


def line(*, head: ClientHead | None = None, status: int = 200, client: str = "192.0.2.1", **request: Any) -> bytes:
    event = request_ended(status, request=request_facts(**request), client=client, bytes_sent=12, head=head)
    return CombinedLines(Redactor(["x-mine"]), lambda: AT_NS).line(event)


def test_a_line_has_the_fields_of_apache_and_nginx() -> None:
    head = ClientHead("1.1", "https://example.com/from?q=secret#part", "curl/8.5.0")
    assert line(head=head) == (
        b'192.0.2.1 - - [30/Nov/2026:10:14:00 +0000] "GET /dashboard/42 HTTP/1.1" 200 12'
        b' "https://example.com/from" "curl/8.5.0"'
    )


def test_absent_values_are_hyphens() -> None:
    assert line(client="", method="", path="", status=408).endswith(b'] "-" 408 12 "-" "-"')
    assert line(client="").startswith(b"- - - [")
    assert b'"GET /dashboard/42 HTTP/2.0"' in line(head=ClientHead("2"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ('/a"b', rb"/a\x22b"),
        ("/a\\b", rb"/a\x5Cb"),
        ("/a\r\nb", rb"/a\x0D\x0Ab"),
        ("/a b", rb"/a\x20b"),
        ("/é\x7f", rb"/\xC3\xA9\x7F"),
        ("/\udcff\ud800", rb"/\x5Cudcff\x5Cud800"),
        ("/" + "x" * 2000, b"/" + b"x" * 1023 + rb"\xE2\x80\xA6"),
    ],
)
def test_a_value_is_escaped_and_cut(path: str, shown: bytes) -> None:
    assert b'"GET ' + shown + b' HTTP/1.1"' in line(path=path, head=ClientHead("1.1"))


def test_secrets_are_hidden_in_path_referer_and_user_agent() -> None:
    head = ClientHead("1.1", "https://me:hunter2@example.com/", "agent/1 api_key=hunter2 x-mine: hunter2")
    shown = line(path="/reset/token=hunter2", head=head)
    assert b"hunter2" not in shown
    assert shown.count(b"[redacted]") == 4


def test_the_first_field_of_a_name_counts_and_its_bytes_are_kept() -> None:
    fields = [(b"user-agent", b"caf\xe9 \xc3\xa9"), (b"referer", b"/a"), (b"user-agent", b"other")]
    head = client_head("1.0", fields)
    assert (head.version, head.referer) == ("1.0", "/a")
    assert line(head=head).endswith(rb'"/a" "caf\xE9 \xC3\xA9"')


texts = st.text(st.characters(codec=None) | st.sampled_from('"\\ \n[]-'), max_size=1100)


@example("", "", "", "", "\U00010000" * 64)
@given(texts, texts, texts, texts, texts)
def test_no_value_leaves_its_field(method: str, path: str, referer: str, user_agent: str, client: str) -> None:
    shown = line(method=method, path=path, client=client, head=ClientHead("1.1", referer, user_agent))

    matched = COMBINED.fullmatch(shown)
    assert matched is not None
    assert shown.isascii()
    assert len(matched[3].split(b" ")) in (1, 3)
    assert matched.group(2, 4, 5) == (b"30/Nov/2026:10:14:00 +0000", b"200", b"12")
    assert len(shown) < 20_000
    record = record_of(shown)
    assert record is not None
    assert record["http.response.status_code"] == 200


@given(st.from_regex(r"/[ -~éü\n]{0,100}", fullmatch=True))
def test_a_line_is_read_as_the_record_that_was_written(path: str) -> None:
    path = path.replace("=", "").replace(":", "")  # What could be redacted.
    assert record_of(line(path=path, head=ClientHead("1.1", "", "ü"))) == {
        "ts": "2026-11-30T10:14:00Z",
        "client.address": "192.0.2.1",
        "http.request.method": "GET",
        "url.path": path,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.response.body.size": 12,
        "user_agent.original": "ü",
    }


@pytest.mark.parametrize(
    "other", [b"", b'{"ts":"2026-11-30T10:14:00.000000Z"}', b"a - - [30/Foo/2026:10:14:00 +0000] ", line()[:-1]]
)
def test_other_lines_are_no_records(other: bytes) -> None:
    assert record_of(other) is None


def test_the_time_of_a_line_is_read_from_its_beginning() -> None:
    assert time_of(line()[:512]) == "2026-11-30T10:14:00Z"
