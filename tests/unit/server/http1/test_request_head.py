"""Parsing of HTTP/1.1 request heads: with cached field sections, exactly the same heads are accepted as without.

The raw requests are in tests/support/server/raw_requests.
"""

from __future__ import annotations

import pytest

from umbel.server.http1.head_errors import HeadError, fields_of_refused, method_path_version
from umbel.server.http1.host import Hosts
from umbel.server.http1.request_head import METHODS, HeadReader
from umbel.server.http2 import request_head as h2_request_head
from umbel.server.limits.server_limits import Limits


@pytest.fixture
def reader() -> HeadReader:
    return HeadReader(Limits(max_head=4096, max_target=100, max_fields=10), Hosts(["a.test", "b.test:81"]))


FIELDS = b"Host: a.test\r\nAccept: */*\r\n\r\n"


def refused(reader: HeadReader, raw: bytes) -> int:
    with pytest.raises(HeadError) as caught:
        reader.read(raw)
    return caught.value.error_response.status


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_head_is_read_equally_with_and_without_the_cache(times: int, reader: HeadReader) -> None:
    for number in range(times):
        head = reader.read(b"POST /p?%d HTTP/1.1\r\nContent-Length: 5\r\n" % number + FIELDS)
        assert (head.method, head.target) == ("POST", b"/p?%d" % number)
        assert head.parsed.fields[:2] == ((b"content-length", b"5"), (b"host", b"a.test"))
        assert (head.parsed.length, head.parsed.keep_alive, head.parsed.version) == (5, True, "1.1")


@pytest.mark.parametrize("form", [b"%b", b"http://a.test%b"], ids=["origin form", "absolute form"])
def test_non_ascii_bytes_of_a_query_are_percent_encoded(form: bytes, reader: HeadReader) -> None:
    target = form % b"/p?q=\xc3\xa9&\xe9=%e9?"
    assert reader.read(b"GET %b HTTP/1.1\r\n" % target + FIELDS).target == b"/p?q=%C3%A9&%E9=%e9?"


@pytest.mark.parametrize(
    ("path", "read"), [(b"/p?q=\xc3\xa9", b"/p?q=%C3%A9"), (b"/\xff?q", None), (b"/?\xff\n", None)]
)
def test_non_ascii_bytes_of_an_http2_query_are_percent_encoded(path: bytes, read: bytes | None) -> None:
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a.test")]
    if read is not None:
        assert h2_request_head.read_head(fields, Limits(), Hosts([])).path == read
        return
    with pytest.raises(HeadError) as caught:
        h2_request_head.read_head(fields, Limits(), Hosts([]))
    assert caught.value.error_response.status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /" + b"x" * 100 + b" HTTP/1.1", 414),
        (b"get / HTTP/1.1", 501),
        (b"BREW / HTTP/1.1", 501),
        (b"CONNECT / HTTP/1.1", 501),
        (b"CONNECT a.test:80 HTTP/1.1", 501),
        (b"GET / HTTP/1.2", 505),
        (b"GET /  HTTP/1.1", 400),
        (b"GET /# HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET /\xff?q=1 HTTP/1.1", 400),
        (b"GET /?\xff# HTTP/1.1", 400),
        (b"GET /?\xff\x7f HTTP/1.1", 400),
        (b"GET http://b.test:81/ HTTP/1.1", 400),
        (b"PRI * HTTP/1.1", 400),
    ],
)
def test_a_malformed_request_line_before_cached_fields_is_refused(line: bytes, status: int, reader: HeadReader) -> None:
    assert refused(reader, line + b"\r\n" + FIELDS) == status
    reader.read(b"GET / HTTP/1.1\r\n" + FIELDS)
    assert refused(reader, line + b"\r\n" + FIELDS) == status


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_of_a_target_is_checked_equally_with_cached_fields(byte: int, reader: HeadReader) -> None:
    """Each byte is tried as the first, the last and the only one. With new fields, a head is parsed in full."""

    def judged(form: bytes, field: bytes) -> tuple[str, bytes] | int:
        try:
            head = reader.read(form % bytes([byte]) + b"\r\n" + field + FIELDS)
        except HeadError as error:
            return error.error_response.status
        return head.method, head.target

    reader.read(b"GET / HTTP/1.1\r\n" + FIELDS)
    for number, form in enumerate((b"GET %b HTTP/1.1", b"GET %b/ HTTP/1.1", b"GET /%b HTTP/1.1", b"GET /%b/ HTTP/1.1")):
        assert judged(form, b"") == judged(form, b"X: %d\r\n" % number)


def test_cached_fields_are_kept_apart_by_version(reader: HeadReader) -> None:
    assert reader.read(b"GET / HTTP/1.1\r\n" + FIELDS).parsed.keep_alive
    assert not reader.read(b"GET / HTTP/1.0\r\n" + FIELDS).parsed.keep_alive
    assert reader.read(b"GET / HTTP/1.1\r\n" + FIELDS).parsed.keep_alive


def test_an_absolute_target_is_read_as_its_path(reader: HeadReader) -> None:
    for target, path in ((b"http://A.test/p?q", b"/p?q"), (b"https://a.test:443", b"/"), (b"http://a.test?q", b"/?q")):
        assert reader.read(b"GET %b HTTP/1.1\r\n" % target + FIELDS).target == path


def test_many_different_heads_are_read_correctly(reader: HeadReader) -> None:
    for number in range(1000):
        head = reader.read(b"GET / HTTP/1.1\r\nX: %d\r\n" % number + FIELDS)
        assert head.parsed.fields[0] == (b"x", b"%d" % number)


@pytest.mark.parametrize(("host", "status"), [(b"a.test", None), (b"b.test:81", None), (b"b.test", 421), (b"", 400)])
def test_a_host_outside_of_hosts_gets_421(host: bytes, status: int | None, reader: HeadReader) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host
    for _ in range(2):
        if status is None:
            reader.read(raw)
        else:
            assert refused(reader, raw) == status


@pytest.mark.parametrize(
    ("names", "served", "refused_too"),
    [
        (["[0:0::1]"], [b"[::1]", b"[::1]:81", b"[0::0:1]:080"], [b"[::2]", b"0::1", b"[::ffff:0.0.0.1]"]),
        (["[::1]:080"], [b"[::1]:80", b"[0::1]:00080"], [b"[::1]", b"[::1]:8080"]),
        (["A.test.:81"], [b"a.test:81", b"a.TEST.:081"], [b"a.test", b"a.test:8", b"b.a.test:81"]),
    ],
)
def test_served_hosts_are_compared_in_one_form_of_address_port_and_final_dot(
    names: list[str], served: list[bytes], refused_too: list[bytes]
) -> None:
    hosts = Hosts(names)
    assert all(hosts.serve([value], required=True) for value in served)
    for value in refused_too:
        try:
            assert not hosts.serve([value], required=True)
        except HeadError as error:
            assert error.error_response.status == 400


def test_an_authority_equals_a_host_field_of_another_spelling() -> None:
    assert Hosts.are_equal(b"[0:0::1]:080", b"[::1]")
    assert not Hosts.are_equal(b"[::1]:81", b"[::1]")


def test_a_probe_is_accepted_for_any_host_and_its_fields_for_no_other() -> None:
    reader = HeadReader(Limits(probes=("/healthz",)), Hosts(["a.test"]))
    fields = b" HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"
    upgrade = b" HTTP/1.1\r\nHost: 10.0.0.1:80\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    for _ in range(2):
        for target in (b"/livez", b"/readyz?x", b"/healthz", b"http://10.0.0.1/livez"):
            assert reader.read(b"GET " + target + fields).parsed.version == "1.1"
        for line in (b"GET /", b"GET /livez/", b"POST /livez", b"GET //livez"):
            assert refused(reader, line + fields) == 421
        assert refused(reader, b"GET /livez" + upgrade) == 421


def test_underscores_are_accepted_with_keep() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nx_y: 1\r\n\r\n"
    assert refused(HeadReader(Limits(), Hosts([])), raw) == 400
    kept = HeadReader(Limits(underscore_headers="keep"), Hosts([])).read(raw)
    assert kept.parsed.fields[1] == (b"x_y", b"1")


def test_each_known_method_is_read(reader: HeadReader) -> None:
    for name, method in METHODS.items():
        assert reader.read(name + b" / HTTP/1.1\r\n" + FIELDS).method == method
        assert HeadReader(Limits(), Hosts([])).read(name + b" / HTTP/1.1\r\n" + FIELDS).method == method


@pytest.mark.parametrize("part", [b"\x16\x03\x01", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nA: b\rC", b"\x00"])
def test_a_part_that_cannot_become_a_head_is_refused_at_once(part: bytes, reader: HeadReader) -> None:
    with pytest.raises(HeadError):
        reader.check_part(part)


def test_parts_of_a_valid_head_are_accepted(reader: HeadReader) -> None:
    raw = b"GET /p HTTP/1.1\r\n" + FIELDS
    for length in range(1, len(raw)):
        reader.check_part(raw[:length])


@pytest.mark.parametrize(("part", "status"), [(b"GET /" + b"x" * 101, 414), (b"GET / HTTP/1.1\r\n" + b"x" * 4096, 431)])
def test_a_part_over_its_limits_is_refused(part: bytes, status: int, reader: HeadReader) -> None:
    with pytest.raises(HeadError) as caught:
        reader.check_part(part)
    assert caught.value.error_response.status == status


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"GET /p?secret HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n", ("GET", "/p", "1.1")),
        (b"\r\nBREW /p\xff HT", ("BREW", "/p\\xff", "")),
        (b"GET /" + b"x" * 10_000, ("GET", "/" + "x" * 199, "")),
        (b"GET /a\x1b[0m\n", ("GET", "/a\x1b[0m\n", "")),
        (b"G(T / HTTP/1.1", ("", "", "")),
        (b"GET", ("", "", "")),
        (b"\x16\x03\x01", ("", "", "")),
        (b"", ("", "", "")),
    ],
)
def test_a_refused_head_is_recorded_with_its_method_path_version(raw: bytes, seen: tuple[str, str]) -> None:
    assert method_path_version(raw) == seen


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b"FOO /p?q=\xff HTTP/1.1\r\nOrigin:  o\t\r\nx_y:\r\nExpect: z\r\n\r\n", 3),
        (b"\r\nGET /" + b"x" * 10_000 + b" HTTP/1.0\r\nOrigin: o\r\nOrig", 1),
        (b"GET / HTTP/1.1\r\nOrigin: o\r\n", 1),
        (b"GET / HTTP/1.1\r\nOrigin: o\r", 0),
        (b"GET / HTTP/1.1\r\nOrigin: o\r\n continued\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\nOrigin: o\r\nx : y\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\nOrigin: o\r\nx: \x01\r\n\r\n", 0),
        (b"GET / HTTP/1.1\nOrigin: o\n\n", 0),
        (b"GET  / HTTP/1.1\r\nOrigin: o\r\n\r\n", 0),
        (b"GET / HTTP/2.0\r\nOrigin: o\r\n\r\n", 0),
        (b"PRI * HTTP/1.1\r\nOrigin: o\r\n\r\n", 0),
        (b"GET / HTTP/1.1", 0),
        (b"\r\n", 0),
        (b"", 0),
    ],
)
def test_a_refused_head_has_fields_if_its_complete_lines_are_well_formed(raw: bytes, count: int) -> None:
    fields = fields_of_refused(raw)
    assert len(fields) == count
    assert fields[:1] == [(b"origin", b"o")][:count]


def test_each_byte_of_a_head_in_parts_is_checked_once() -> None:
    reader = HeadReader(Limits(), Hosts(()))
    for raw in (b"GET / HTTP/1.1\r\na: b\rc", b"GET / HTTP/1.1\r\na: b\nc", b"GET / HTTP/1.1\r\na: \x00"):
        with pytest.raises(HeadError):
            for end in range(1, len(raw) + 1):
                reader.check_part(raw[:end], end - 1)
    sound = b"GET / HTTP/1.1\r\na: b\r\nc: d\r\n"
    for end in range(1, len(sound) + 1):
        reader.check_part(sound[:end], end - 1)


@pytest.mark.parametrize("field", [b"Authorization: Basic eA==", b"cookie: s=1", b"X-Api-Token: t"])
def test_a_field_section_with_a_secret_is_not_cached(field: bytes, reader: HeadReader) -> None:
    for _ in range(2):
        assert reader.read(b"GET / HTTP/1.1\r\n" + field + b"\r\n" + FIELDS).target == b"/"
    assert not reader._known.entries


def test_hosts_are_cached_if_short_and_evicted_oldest_first() -> None:
    hosts = Hosts(())
    for value in (b"h" * 60_000, *(b"h%d" % number for number in range(300))):
        assert hosts.serve([value], required=True) and hosts.serve([value], required=True)
    assert list(hosts._good.entries) == [b"h%d" % number for number in range(44, 300)]
