"""The size of the pieces of a body that is passed on."""

from __future__ import annotations

import pytest

from umbel.core.pieces import PIECE, PIECE_MAX, next_piece


@pytest.mark.parametrize(
    ("size", "at_once", "following"),
    [
        (PIECE, True, PIECE_MAX),
        (PIECE_MAX, True, PIECE_MAX),
        (PIECE // 2, True, PIECE_MAX),
        (PIECE // 2 - 1, True, PIECE),
        (PIECE, False, PIECE),
        (PIECE_MAX, False, PIECE),
    ],
)
def test_only_a_large_piece_that_was_sent_at_once_is_followed_by_a_larger_one(
    size: int, at_once: bool, following: int
) -> None:
    assert next_piece(size, at_once=at_once) == following
