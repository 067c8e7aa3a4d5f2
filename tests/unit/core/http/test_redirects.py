"""The request that follows a redirect: method rules, the same origin only, and hostile Locations."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.call import PreparedRequest
from umbel.core.http.redirects import REDIRECTS_MAX, NotFollowedError, followed

FIELDS = [(name, name, b"x") for name in (b"authorization", b"content-type", b"content-language", b"idempotency-key")]


def hop(
    location: bytes | None,
    *,
    status: int = 302,
    method: str = "GET",
    target: bytes = b"/a/b?c=1",
    host: bytes = b"api.test:8080",
    base: bytes = b"/v1",
    hops: int = 0,
) -> PreparedRequest:
    prepared = PreparedRequest(method, target, FIELDS, b"body" if method != "GET" else None)
    fields = [] if location is None else [(b"Location", b"location", location)]
    return followed(prepared, status, fields, "http", host, base, hops)


@pytest.mark.parametrize(
    ("status", "method", "followed_by"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"), (302, "GET", "GET"), (301, "PUT", "PUT"), (302, "DELETE", "DELETE"),
        (307, "POST", "POST"), (308, "PATCH", "PATCH"),
    ],
)  # fmt: skip
def test_the_method_and_the_content_follow_rfc_9110(status: int, method: str, followed_by: str) -> None:
    made = hop(b"/v1/new", status=status, method=method)
    assert (made.method, made.target) == (followed_by, b"/new")
    lost = followed_by != method
    assert made.content == (None if lost or method == "GET" else b"body")
    assert [name for _, name, _ in made.headers] == [b"authorization"] if lost else made.headers == FIELDS


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/v1/new", b"/new"), (b"/v1", b"/"), (b"/v1/", b"/"), (b"new", b"/a/new"), (b"../new?d", b"/new?d"),
        (b"?page=2", b"/a/b?page=2"), (b"http://api.test:8080/v1/x#top", b"/x"), (b"//API.TEST:8080/v1/x", b"/x"),
        (b"HTTP://api.test:8080/v1/a%20b?q=%2F%2F", b"/a%20b?q=%2F%2F"), (b"/v1//x", b"//x"),
    ],
)  # fmt: skip
def test_a_location_of_the_same_origin_is_followed(location: bytes, target: bytes) -> None:
    assert hop(location).target == target


@pytest.mark.parametrize(
    "location",
    [
        None, b"", b"http://evil.test/v1/x", b"//evil.test/v1/x", b"https://api.test:8080/v1/x", b"http://api.test/v1/x",
        b"http://u:p@api.test:8080/v1/x", b"http://api.test:8080@evil.test/v1/x", b"http://api.test:8080.evil.test/v1/",
        b"\\\\evil.test/v1", b"/\\evil.test", b"/v1/x y", b"/v1/x\r\nset-cookie: a=b", b"/v1/\xe9", b"/v1/\t/x",
        b"http:///v1/x", b"///v1/x", b"http://[::1/v1", b"javascript:alert(1)", b"file:///v1/etc", b"ftp://api.test:8080/v1/x",
        b"/v1/..;/x", b"/v1/.;a=b/x", b"/v1/%2e.%3B/x", b"/v1/a%zz", b"/v1/a?b=%", b"/v1/%00",
        b"/v2/x", b"/v1x", b"/", b"../../x", b"/v1/%2e%2e/x", b"/v1/..%2fadmin", b"/v1/a%5c..%5cb",
        b"http://api.test:8080/v1/../x", b"/v1/" + b"x" * 17_000,
    ],
)  # fmt: skip
def test_a_location_elsewhere_or_malformed_is_not_followed(location: bytes | None) -> None:
    with pytest.raises(NotFollowedError) as caught:
        hop(location)
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "location"), [(b"api.test", b"http://api.test:80/"), (b"api.test:80", b"//api.test/")]
)
def test_the_default_port_is_the_same_as_none(host: bytes, location: bytes) -> None:
    assert hop(location, host=host, base=b"").target == b"/"


def test_the_sixth_redirect_is_not_followed() -> None:
    assert hop(b"/v1/x", hops=REDIRECTS_MAX - 1).target == b"/x"
    with pytest.raises(NotFollowedError, match="followed 5 already"):
        hop(b"/v1/x", hops=REDIRECTS_MAX)


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"/", b"//", b"http://", b"http://api.test:8080", b"/v1/", b"../"])
)
def test_no_location_leads_out_of_the_base_url(rest: bytes, start: bytes) -> None:
    try:
        target = hop(start + rest).target
    except NotFollowedError:
        return
    assert target.startswith(b"/") and target.isascii() and target.decode().isprintable()
    path = unquote(urlsplit("http://api.test:8080/v1" + target.decode()).path, "latin-1").replace("\\", "/")
    assert not {".", ".."} & {*path.split("/")}
