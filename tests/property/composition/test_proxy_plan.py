"""Proxy plans with random paths, queries, header fields and responses: nothing leaves its place."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.composition.proxy.plans import plan
from umbel.core.errors import RequestError
from umbel.core.http.hop_by_hop import is_hop_by_hop
from umbel.gateway.request.paths import check_path, check_query

FILES = plan("/files/<path:rest>", path="/v2/{+rest}?tenant=7", upstream="based")
PLAIN = plan(upstream="based", preserve_host=True)
pieces = st.lists(
    st.sampled_from(["/", "//", ".", "..", ";", "%2e", "%2F", "%5c", "%3B", "%C3%A9", "a", "v2", "@", "?", "=", "&"]),
    max_size=12,
).map("".join)
hosts = ["http://based.internal", "https://API.internal", "//based.internal:80", "http://evil.example", "", "http:"]
tails = st.lists(
    st.sampled_from(
        ["/", "\\", "v1", "v2", "files", ".", "..", ";", "%2e", "\t", " ", "@evil.example", "?", "#", "\xff"]
    ),
    max_size=8,
).map("".join)
names = st.sampled_from(
    [b"host", b"Via", b"x_forwarded_for", b"x-forwarded-for", b"cookie", b"te", b"proxy-x", b"x-a", b"X-B", b"upgrade"]
)
values = st.sampled_from([b"x-a", b"x-b, close", b"a=1", b"", b"host"])


def accepted(target: str) -> bool:
    path, _, query = target.partition("?")
    with suppress(RequestError):
        check_path(path.encode())
        check_query(query.encode())
        return not path.startswith("//")
    return False


@given(pieces)
def test_a_target_keeps_its_prefix_and_has_no_dot_segment(rest: str) -> None:
    target = f"/files/{rest}"
    if not accepted(target):
        return
    decoded = unquote_to_bytes(rest.partition("?")[0]).decode()
    try:
        sent = FILES.target(target.encode(), {"rest": decoded})
    except RequestError as error:
        assert error.status == 400
        return
    path, _, query = sent.partition(b"?")
    assert path.startswith(b"/v2/")
    assert unquote_to_bytes(path[len(b"/v2/") :]).decode() == decoded
    assert query.startswith(b"tenant=7")
    assert b"&tenant=" not in query
    for segment in path.split(b"/"):
        assert unquote_to_bytes(segment).partition(b";")[0] not in (b".", b"..")


@given(pieces)
def test_without_a_template_a_target_is_the_client_s_or_refused(rest: str) -> None:
    target = f"/{rest}".encode()
    if accepted(target.decode()):
        with suppress(RequestError):
            assert PLAIN.target(target, {}) == target


@given(st.sampled_from(hosts), tails)
def test_a_location_stays_or_leads_to_a_path_of_the_client_s_origin(host: str, tail: str) -> None:
    location = f"{host}{tail}".encode("latin-1")
    for found, path, values in ((FILES, b"/files/a", {"rest": "a"}), (PLAIN, b"/a", {"rest": "a"})):
        ((_, made),) = found.response_fields([(b"location", b"location", location)], path, values)
        if made == location:
            continue
        assert made.startswith(b"/")
        assert made[1:2] not in (b"/", b"\\")
        assert urlsplit(urljoin("https://client.example/files/a", made.decode("ascii"))).netloc == "client.example"


@given(st.lists(st.tuples(names, values), max_size=8))
def test_only_end_to_end_fields_of_the_client_are_passed_on(fields: list[tuple[bytes, bytes]]) -> None:
    sent = PLAIN.request_fields([(b"connection", b"x-b"), *fields])
    for name, lower, value in sent:
        assert lower == name.lower()
        assert not is_hop_by_hop(lower)
        assert lower not in (b"via", b"x-forwarded-for", b"x_forwarded_for", b"x-b")
        assert lower == b"cookie" or (name, value) in fields
    assert [lower for _, lower, _ in sent].count(b"cookie") == any(name == b"cookie" for name, _ in fields)
