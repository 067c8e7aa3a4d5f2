"""Fields of a response as lines of a head: checks, and the caches of checked fields."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.core.inbound import PreparedFields, ResponseFields
from umbel.server.response import response_head
from umbel.server.response.response_head import ApplicationError, Fields, read_fields


@pytest.fixture(autouse=True)
def _forget() -> None:
    response_head._known.entries.clear()
    response_head._names.entries.clear()
    response_head._sections.entries.clear()


def test_lines_keep_their_order_without_the_servers_own_fields() -> None:
    headers = [
        (b"Vary", b"Accept"),
        (b"etag", b'"1"'),
        (b"content-length", b"7"),
        (b"Connection", b"Close"),
        (b"date", b"now"),
        (b"transfer-encoding", b"chunked"),
        (b"vary", b"Accept"),
    ]
    expected = Fields(
        b'vary: Accept\r\netag: "1"\r\ncontent-length: 7\r\ndate: now\r\nvary: Accept\r\n', 7, close=True, dated=True
    )
    for _ in range(3):
        assert read_fields(headers) == expected
        assert read_fields(iter(headers)) == expected
        assert read_fields([[*pair] for pair in headers]) == expected  # type: ignore[misc]  # Some applications make lists.


@pytest.mark.parametrize(
    "headers",
    [
        [(b"etag", b'"1"\r\nset-cookie: a=b')],
        [(b"connection", b"x"), (b"etag", b'"1"\r\nset-cookie: a=b')],
        [(b"x-other", b"a\nb")],
        [(b"x-other", b"a\0b")],
        [(b"x other", b"a")],
        [(b"", b"a")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
    ],
)
def test_fields_that_would_split_a_response_are_refused_each_time(headers: Any) -> None:
    read_fields([(b"x-other", b"good"), (b"etag", b'"good"')])
    for _ in range(3):
        with pytest.raises(ApplicationError):
            read_fields(headers)


def test_values_of_one_response_and_secrets_are_not_cached() -> None:
    read_fields([(b"vary", b"a"), (b"etag", b'"1"'), (b"set-cookie", b"s=1"), (b"ETag", b'"2"'), (b"x-token", b"t")])
    assert set(response_head._known.entries) == {(b"vary", b"a")}
    for field in ((b"etag", b'"1"'), (b"set-cookie", b"s=1"), (b"x-token", b"t"), (b"date", b"now")):
        for _ in range(2):
            read_fields([field, (b"vary", b"a"), (b"content-length", b"1")])
    assert not response_head._sections.entries


def test_a_short_section_of_known_fields_is_cached() -> None:
    fields = [(b"vary", b"a"), (b"content-length", b"1")]
    expected = Fields(b"vary: a\r\ncontent-length: 1\r\n", 1, close=False, dated=False)
    for times in range(3):
        assert read_fields(fields) == expected
        assert set(response_head._sections.entries) == ({tuple(fields)} if times else set())
    read_fields([(b"vary", b"a")] * 5)
    assert set(response_head._sections.entries) == {tuple(fields)}


def test_the_caches_are_bounded() -> None:
    for number in range(3000):
        read_fields([(b"x-%d" % number, b"v")])
        assert len(response_head._known.entries) <= 1024
        assert len(response_head._names.entries) <= 1024
        read_fields([(b"content-length", b"%d" % number)])
        assert len(response_head._sections.entries) <= 256
    read_fields([(b"x-long", b"v" * 200), (b"x" * 200, b"v")])
    assert (b"x-long", b"v" * 200) not in response_head._known.entries
    assert b"x" * 200 not in response_head._names.entries


@pytest.mark.parametrize("name", [b"x-request-id", b"x-other"])
def test_prepared_fields_are_read_as_their_list_and_values_are_checked_each_time(name: bytes) -> None:
    length = (b"content-length", None)
    prepared = PreparedFields([(b"vary", b"a"), (name, None), (b"connection", b"close"), length, (b"x-last", b"%b")])
    for value in (b"1", b"%d", b""):
        fields = ResponseFields(prepared, (value, b"3"))
        assert (len(fields), fields[1], fields[-1]) == (5, (name, value), (b"x-last", b"%b"))
        assert read_fields(fields) == read_fields([*fields])
        assert read_fields(fields).length == 3
    for value in (b"a\r\nset-cookie: b", b"a\n", b"\0"):
        with pytest.raises(ApplicationError):
            read_fields(ResponseFields(prepared, (value, b"3")))
    for malformed in (b"", b"-3", b"3 ", b"x"):
        with pytest.raises(ApplicationError):
            read_fields(ResponseFields(prepared, (b"1", malformed)))


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"3"), (b"content-length", None)],
        [(b"content-length", None), (b"content-length", None)],
        [(b"x y", b"1")],
        [(b"x y", None)],
        [(b"X-Upper", None)],
        [(b"x", b"a\nb")],
        [(b"connection", None)],
        [(b"date", None)],
    ],
)
def test_prepared_fields_that_are_malformed_are_refused_each_time(fields: list[tuple[bytes, bytes | None]]) -> None:
    prepared = PreparedFields(fields)
    for _ in range(2):
        with pytest.raises(ApplicationError):
            read_fields(ResponseFields(prepared, tuple(b"3" for _, value in fields if value is None)))
