from __future__ import annotations

import pytest

from umbel.policy.coalescing_key import Field, for_one_alone, last_hop, split


def field(name: bytes, value: bytes) -> Field:
    return name, name.lower(), value


def test_only_fields_that_the_gateway_wrote_are_left_out_of_the_key() -> None:
    asked, own = field(b"Accept", b"a"), field(b"X-Any", b"v")
    assert split([asked, own], {b"x-any"}) == ([asked], [own])


@pytest.mark.parametrize(
    "name",
    [
        *(b"traceparent", b"TraceState", b"X-Request-ID", b"via", b"X-Forwarded-For", b"x-forwarded-proto"),
        *(b"X-Forwarded-User", b"baggage", b"authorization", b"cookie", b"range", b"forwarded", b""),
    ],
)
def test_no_name_alone_keeps_a_field_out_of_the_key(name: bytes) -> None:
    assert split([field(name, b"v")], ()) == ([field(name, b"v")], [])


def test_the_order_and_repeated_fields_are_kept() -> None:
    fields = [field(b"B", b"1"), field(b"a", b"2"), field(b"via", b"x"), field(b"B", b"0")]
    assert split(fields, {b"via"})[0] == [fields[0], fields[1], fields[3]]


@pytest.mark.parametrize(
    ("via", "last"),
    [(b"1.1 umbel", b"1.1 umbel"), (b"1.0 fred, 1.1 p.example.net,2 umbel ", b"2 umbel"), (b"", b"")],
)
def test_of_a_way_only_the_last_step_is_kept(via: bytes, last: bytes) -> None:
    assert last_hop(via) == last


@pytest.mark.parametrize(
    ("said", "alone"),
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
def test_an_answer_for_one_alone_is_known_by_its_fields(said: tuple[bytes, bytes], alone: bool) -> None:
    assert for_one_alone([field(b"date", b"x"), field(*said)], {b"x-forwarded-for"}) is alone
