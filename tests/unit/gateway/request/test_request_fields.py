"""Fields of a request by name, and the cache of field sections."""

from __future__ import annotations

import pytest

from umbel.gateway.request import request_fields
from umbel.gateway.request.request_fields import read_fields

HOST = (b"host", b"gateway.test")


@pytest.fixture(autouse=True)
def _forget() -> None:
    request_fields._known.entries.clear()


def test_repeated_fields_are_joined_and_names_are_lower_case() -> None:
    read = read_fields([(b"Accept", b"a"), (b"accept", b"b"), (b"cookie", b"s=1"), (b"cookie", b"t=2")], believed=False)
    assert dict(read.by_name) == {"accept": "a, b", "cookie": "s=1; t=2"}
    assert dict(read.cookies) == {"s": "1", "t": "2"}


def test_hop_by_hop_fields_are_not_end_to_end() -> None:
    section = [
        HOST,
        (b"connection", b"close, X-Once ,\tcookie"),
        (b"Connection", b"x-twice"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"proxy-authorization", b"Basic eA=="),
        (b"X-Once", b"1"),
        (b"x-twice", b"2"),
        (b"x-else", b"3"),
        (b"cookie", b"a=1"),
    ]
    read = read_fields(section, believed=False)
    assert dict(read.end_to_end) == {"host": "gateway.test", "x-else": "3"}
    assert dict(read.cookies) == {}
    assert read.get("x-once") == "1"
    plain = read_fields([HOST, (b"x-once", b"1")], believed=False)
    assert plain.end_to_end is plain.by_name


def test_equal_sections_share_one_immutable_result() -> None:
    first, again = (read_fields([HOST, (b"accept", b"*/*")], believed=False) for _ in range(2))
    assert first is again
    with pytest.raises(TypeError):
        first.by_name["host"] = "other"  # type: ignore[index]  # that is what must not be possible


def test_forwarded_fields_in_any_case_count_only_from_a_believed_peer() -> None:
    claims = [HOST, (b"x-forwarded-for", b"1.1.1.1"), (b"X-Forwarded-Host", b"evil"), (b"Forwarded", b"for=1.1.1.1")]
    for _ in range(2):
        assert list(read_fields(claims, believed=False).by_name) == ["host"]
        assert len(read_fields(claims, believed=True).by_name) == 4


@pytest.mark.parametrize("name", [b"cookie", b"authorization", b"x-api-key", b"X-Session-Token"])
def test_a_section_with_a_secret_field_is_not_cached(name: bytes) -> None:
    assert read_fields([HOST, (name, b"s3cret")], believed=False).kept == [HOST, (name, b"s3cret")]
    assert not request_fields._known.entries


def test_the_cache_of_sections_is_bounded() -> None:
    for number in range(1000):
        read_fields([HOST, (b"x-n", b"%d" % number)], believed=False)
        assert len(request_fields._known.entries) <= 256
    read_fields([(b"x-long", b"x" * 1025)], believed=False)
    assert all(len(section[0][1]) < 1025 for _, section in request_fields._known.entries)


def test_fields_given_as_lists_are_read() -> None:
    assert read_fields([[b"host", b"h"]], believed=False).get("host") == "h"  # type: ignore[list-item]  # as some servers


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        (b"gateway.test", True),
        (b"gateway.test:8000", True),
        (b"a" * 63, True),
        (b"a" * 64, False),
        (b"a..b", False),
        (b"a.", False),
        (b"", False),
        (b"[::1]:80", False),
        (b"caf\xe9", False),
        (b"h:0", False),
        (b"h:123456", False),
        (b"h:65536", False),
        (b"h\n", False),
    ],
)
def test_a_plain_host_is_one_that_every_parser_accepts(host: bytes, plain: bool) -> None:
    assert read_fields([(b"host", host)], believed=False).has_plain_host is plain


@pytest.mark.parametrize(
    ("headers", "announced"),
    [
        ([], False),
        ([(b"content-length", b"0")], False),
        ([(b"content-length", b"5")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_a_body_is_announced_by_its_length_or_its_coding(headers: list[tuple[bytes, bytes]], announced: bool) -> None:
    assert read_fields(headers, believed=False).announces_body is announced
