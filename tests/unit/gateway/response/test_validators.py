from __future__ import annotations

import pytest

from umbel.gateway.response.validators import etag_of, not_modified

TAG = etag_of(b"body")


def test_equal_bytes_have_equal_strong_tags_and_others_do_not() -> None:
    assert TAG == etag_of(b"body") != etag_of(b"other")
    assert TAG.startswith('"')
    assert TAG.endswith('"')


@pytest.mark.parametrize(
    ("if_none_match", "expected"),
    [(None, False), ("", False), ("*", True), (TAG, True), (f"W/{TAG}", True), (f'"x", {TAG}', True), ('"x"', False)],
)
def test_a_tag_that_the_client_has_is_not_modified(if_none_match: str | None, expected: bool) -> None:
    assert not_modified(if_none_match, TAG) is expected
