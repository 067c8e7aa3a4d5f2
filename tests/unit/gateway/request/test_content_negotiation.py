"""Content negotiation between a single response and a stream."""

from __future__ import annotations

import pytest

from umbel.gateway.request.content_negotiation import stream_form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, None),
        ("*/*", None),
        ("application/json", None),
        ("application/x-ndjson", "ndjson"),
        ("Application/X-NDJSON", "ndjson"),
        ("text/event-stream", "sse"),
        ("text/event-stream;q=0", None),
        ("text/*", None),
        ("text/html, text/event-stream;q=0.4, application/x-ndjson;q=0.8", "ndjson"),
        ("text/event-stream, application/x-ndjson", "sse"),
        ("application/json, text/event-stream", "sse"),
        ("application/json, text/event-stream;q=0.5", None),
        ("application/json;q=0.1, application/x-ndjson;q=0.5", "ndjson"),
        ('text/plain;x="application/x-ndjson"', None),
    ],
)
def test_a_stream_is_sent_if_accept_names_its_media_type(accept: str | None, form: str | None) -> None:
    assert stream_form(accept) == form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "ndjson"),
        ("application/json", "ndjson"),
        ("text/event-stream", "sse"),
        ("application/json, text/event-stream;q=0.5", "sse"),
        ("text/event-stream;q=0", "ndjson"),
    ],
)
def test_a_route_that_always_streams_is_ndjson_unless_asked_otherwise(accept: str | None, form: str) -> None:
    assert stream_form(accept, always=True) == form


def test_an_accept_that_is_too_long_is_ignored() -> None:
    assert stream_form("text/event-stream" + ",a/b" * 1000) == "sse"
    assert stream_form("text/event-stream" + ",a/b" * 1100) is None
    assert stream_form("text/event-stream" + ",a/b" * 1100, always=True) == "ndjson"
