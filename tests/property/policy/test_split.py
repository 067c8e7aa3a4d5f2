"""Splits with any shares: which keys move when a share is changed, and how long the intervals are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.policy.split import Split

POSITIONS = [(number + 0.5) / 1000 for number in range(1000)]
PERMILLE = st.integers(0, 1000)


@st.composite
def shares_of(draw: st.DrawFn, most: int) -> dict[str, int]:
    """Draw shares in per mille, at most 1000 together."""
    shares: dict[str, int] = {}
    for number in range(draw(st.integers(1, most))):
        shares[f"u{number}"] = draw(st.integers(0, 1000 - sum(shares.values())))
    return shares


def at_each_position(shares: dict[str, int]) -> list[str]:
    split = Split("own", {name: share / 1000 for name, share in shares.items()})
    return [split.at(position) for position in POSITIONS]


@given(shares=shares_of(5))
def test_the_interval_of_each_upstream_is_as_long_as_its_share(shares: dict[str, int]) -> None:
    found = at_each_position(shares)
    assert {name: found.count(name) for name in shares} == shares


@given(shares=shares_of(2), data=st.data())
def test_raising_a_share_moves_only_keys_of_the_default_upstream(shares: dict[str, int], data: st.DataObject) -> None:
    raised = data.draw(st.sampled_from(sorted(shares)))
    more = data.draw(st.integers(0, 1000 - sum(shares.values())))
    before = at_each_position(shares)
    after = at_each_position({**shares, raised: shares[raised] + more})
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert moved == [("own", raised)] * more


@given(shares=shares_of(5), data=st.data())
def test_raising_a_share_takes_no_key_from_the_raised_upstream(shares: dict[str, int], data: st.DataObject) -> None:
    raised = data.draw(st.sampled_from(sorted(shares)))
    more = data.draw(st.integers(0, 1000 - sum(shares.values())))
    before = at_each_position(shares)
    after = at_each_position({**shares, raised: shares[raised] + more})
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    # At most the length of the raised share's growth moves again at each later border of its side.
    assert len(moved) <= more * len(shares)
    assert all(old != raised for old, _ in moved)


@given(key=st.text(), share=PERMILLE)
def test_a_key_is_at_the_same_upstream_each_time(key: str, share: int) -> None:
    split, again = Split("own", {"v2": share / 1000}), Split("own", {"v2": share / 1000})
    assert split.choose(key, lambda: 0.0) == again.choose(key, lambda: 0.9)
    assert 0 <= split.position(key) < 1
