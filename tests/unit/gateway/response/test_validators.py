"""ETags and If-None-Match."""

from __future__ import annotations

import pytest

from umbel.gateway.response.validators import etag_of, not_modified

TAG = etag_of(b"body")


def test_only_equal_bodies_have_equal_strong_etags() -> None:
    assert TAG == etag_of(b"body") != etag_of(b"other")
    assert TAG.startswith('"')
    assert TAG.endswith('"')


@pytest.mark.parametrize(
    ("if_none_match", "expected"),
    [(None, False), ("", False), ("*", True), (TAG, True), (f"W/{TAG}", True), (f'"x", {TAG}', True), ('"x"', False)],
)
def test_if_none_match_with_the_etag_is_not_modified(if_none_match: str | None, expected: bool) -> None:
    assert not_modified(if_none_match, TAG) is expected
