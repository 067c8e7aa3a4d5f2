"""Rules of coalescing: private responses, and the last hop of Via."""

from __future__ import annotations

import pytest

from umbel.core.http.header_field import Field
from umbel.policy.coalescing_key import is_private, last_hop


def field(name: bytes, value: bytes) -> Field:
    return name, name.lower(), value


@pytest.mark.parametrize(
    ("via", "last"),
    [(b"1.1 umbel", b"1.1 umbel"), (b"1.0 fred, 1.1 p.example.net,2 umbel ", b"2 umbel"), (b"", b"")],
)
def test_the_last_hop_of_via_is_its_last_member(via: bytes, last: bytes) -> None:
    assert last_hop(via) == last


@pytest.mark.parametrize(
    ("said", "private"),
    [
        ((b"set-cookie", b""), True),
        ((b"Set-Cookie", b"a=1"), True),
        ((b"Cache-Control", b"private"), True),
        ((b"cache-control", b"PRIVATE,max-age=1"), True),
        ((b"cache-control", b"max-age=1 ,\tprivate "), True),
        ((b"cache-control", b'private = "x"'), True),
        ((b"cache-control", b"public, max-age=1"), False),
        ((b"cache-control", b"unprivate"), False),
        ((b"cache-control", b"private-ish"), False),
        ((b"cookie", b"private"), False),
        ((b"x-cache-control", b"private"), False),
        ((b"vary", b"*"), True),
        ((b"Vary", b"accept, *"), True),
        ((b"vary", b"Accept,\tX-Forwarded-For "), True),
        ((b"vary", b"accept, x-forwarded-user"), False),
        ((b"vary", b""), False),
    ],
)
def test_a_private_response_is_known_by_its_fields(said: tuple[bytes, bytes], private: bool) -> None:
    assert is_private([field(b"date", b"x"), field(*said)], {b"x-forwarded-for"}) is private
