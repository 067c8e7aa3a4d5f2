"""The response fields that belong to each status."""

from __future__ import annotations

import pytest

from umbel.composition.answer.status_fields import FIELDS_MAX, REDIRECTS, VALUES_MAX, fields_of_status, missing_field
from umbel.core.http.header_field import Field


def fields(*pairs: tuple[str, str]) -> list[Field]:
    return [(name.encode(), name.lower().encode(), value.encode("latin-1")) for name, value in pairs]


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("WWW-Authenticate", {400, 401, 403}),
        ("DPoP-Nonce", {400, 401}),
        ("Allow", {405}),
        ("Location", REDIRECTS | {201, 202, 204}),
        ("Retry-After", REDIRECTS | {413, 429, 503}),
        ("Content-Range", {206, 416}),
        ("Accept-Encoding", {415}),
        ("RateLimit-Policy", {429}),
        ("X-RateLimit-Reset", {429}),
        ("Set-Cookie", set()),
        ("Proxy-Authenticate", set()),
        ("ETag", set()),
    ],
)
def test_a_field_is_taken_over_only_with_the_statuses_it_belongs_to(name: str, statuses: set[int]) -> None:
    found = {status for status in range(200, 600) if fields_of_status(status, fields((name, "x")))}
    assert found == statuses


def test_fields_keep_order_and_values_and_names_are_in_lower_case() -> None:
    found = fields_of_status(401, fields(("WWW-Authenticate", "B \xe9"), ("X", "1"), ("www-authenticate", "")))
    assert found == (("www-authenticate", "B \xe9"), ("www-authenticate", ""))


def test_of_repeated_single_fields_the_first_counts_even_if_too_long() -> None:
    assert fields_of_status(503, fields(("Retry-After", "1"), ("Retry-After", "2"))) == (("retry-after", "1"),)
    assert fields_of_status(302, fields(("Location", "/" * (VALUES_MAX + 1)), ("Location", "/2"))) == ()


def test_a_field_beyond_the_bounds_is_left_out() -> None:
    long = ("WWW-Authenticate", "x" * (VALUES_MAX - 1))
    assert [len(value) for _, value in fields_of_status(401, fields(long, long, long))] == [VALUES_MAX - 1]
    assert len(fields_of_status(401, fields(*[("WWW-Authenticate", "x")] * 1000))) == FIELDS_MAX


def test_redirects_need_a_location_and_405_an_allow_that_may_be_empty() -> None:
    needed = {status: missing_field(status, ()) for status in range(200, 600) if missing_field(status, ())}
    assert needed == {301: "Location", 302: "Location", 303: "Location", 307: "Location", 308: "Location", 405: "Allow"}
    assert missing_field(302, (("location", ""), ("allow", "GET"))) == "Location"
    assert missing_field(302, (("retry-after", "1"), ("location", "/"))) == ""
    assert missing_field(405, (("allow", ""),)) == ""
