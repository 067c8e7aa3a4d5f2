"""Cache of the fields that ``"*"`` excludes."""

from __future__ import annotations

from umbel.core.http import forward_all as star
from umbel.core.http import hop_by_hop
from umbel.core.http.forward_all import star_leaves_out
from umbel.core.http.hop_by_hop import named_by


def test_only_short_field_names_are_cached() -> None:
    assert star_leaves_out("x_forwarded_for") and not star_leaves_out("x-short")
    assert not star_leaves_out("x" * 60_000)
    assert named_by(b"x-once, " + b"x" * 60_000) == {b"x-once", b"x" * 60_000}
    assert "x-short" in star._known.entries
    assert max(map(len, [*star._known.entries, *hop_by_hop._known.entries])) <= 128
