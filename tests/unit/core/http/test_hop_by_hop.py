"""Hop-by-hop header fields."""

from __future__ import annotations

import pytest

from umbel.core.http.hop_by_hop import hop_by_hop_among, is_hop_by_hop, named_by


@pytest.mark.parametrize(
    ("connection", "names"),
    [
        (b"", set()),
        (b"close", set()),
        (b"Keep-Alive , CLOSE", set()),
        (b"close, X-Once", {b"x-once"}),
        (b",, x-a\t,X-B,", {b"x-a", b"x-b"}),
        (b"x" * 1000, {b"x" * 1000}),
    ],
)
def test_fields_named_by_connection_are_hop_by_hop(connection: bytes, names: set[bytes]) -> None:
    assert named_by(connection) == names


def test_connection_and_proxy_fields_are_hop_by_hop_without_being_named() -> None:
    names = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"]
    assert all(is_hop_by_hop(name.encode()) for name in names)
    assert hop_by_hop_among([*names, "accept", "x-a"], None) == names
    assert hop_by_hop_among([*names, "accept", "x-a"], "X-A") == [*names, "x-a"]
    assert hop_by_hop_among(["proxied", "cookie"], "close") == []
