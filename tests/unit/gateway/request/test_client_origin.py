"""Client origin: trusted proxies, forwarded fields, Via."""

from __future__ import annotations

import pytest

from umbel.composition.request.request_template import GATEWAY_FIELDS_ALWAYS, GATEWAY_FIELDS_FORWARDED
from umbel.core.call import block_of
from umbel.core.networks import Networks
from umbel.gateway.request import client_origin
from umbel.gateway.request.client_origin import origin_of

PROXIES = Networks(["10.0.0.0/8", "::1"])
HOST = (b"host", b"shop.example")


def test_forwarded_fields_of_an_untrusted_peer_are_replaced() -> None:
    origin = origin_of(
        "203.0.113.9",
        [
            HOST,
            (b"x-forwarded-for", b"1.1.1.1"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"evil.example"),
            (b"x-forwarded-anything", b"x"),
            (b"forwarded", b"for=1.1.1.1"),
            (b"x-real-ip", b"1.1.1.1"),
            (b"remote-addr", b"1.1.1.1"),
            (b"accept", b"*/*"),
        ],
        PROXIES,
    )
    assert list(origin.headers) == [HOST, (b"accept", b"*/*")]
    assert (origin.client, origin.trusted) == ("203.0.113.9", False)
    assert origin.forwarded_for() == block_of(
        [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example"),
        ]
    )


def test_forwarded_fields_of_a_trusted_peer_are_continued() -> None:
    origin = origin_of(
        "10.1.2.3",
        [HOST, (b"x-forwarded-for", b"198.51.100.7, 10.9.9.9"), (b"x-forwarded-proto", b"HTTPS")],
        PROXIES,
    )
    assert (origin.client, origin.trusted) == ("198.51.100.7", True)
    assert origin.forwarded_for() == block_of(
        [
            ("x-forwarded-for", "198.51.100.7, 10.9.9.9, 10.1.2.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
        ]
    )


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("6.6.6.6, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.5", "10.0.0.5"),
        ("not an address", "10.1.2.3"),
        ("6.6.6.6, unknown, 10.0.0.5", "10.0.0.5"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("", "10.1.2.3"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(chain: str, client: str) -> None:
    assert origin_of("10.1.2.3", [(b"x-forwarded-for", chain.encode())], PROXIES).client == client


def test_a_peer_without_an_address_is_not_trusted() -> None:
    assert origin_of(None, [HOST], PROXIES).forwarded_for()[0][1:] == (b"x-forwarded-proto", b"http")


def test_via_is_continued_with_the_inbound_version() -> None:
    origin = origin_of("1.2.3.4", [(b"via", b"1.0 fred"), (b"via", b"1.1 p.example")], PROXIES, http_version="2")
    assert origin.via() == block_of([("via", "1.0 fred, 1.1 p.example, 2 umbel")])


def test_a_via_that_is_too_long_is_not_forwarded() -> None:
    assert origin_of("1.2.3.4", [(b"via", b"1.1 x, " * 1000)], PROXIES).via() == block_of([("via", "1.1 umbel")])


def test_a_bounded_number_of_forwarded_members_is_read() -> None:
    trust = Networks(["10.0.0.0/8"])
    near = ", ".join(f"10.0.0.{hop}" for hop in range(1, 64))
    assert origin_of("10.0.0.1", [(b"x-forwarded-for", f"192.0.2.7, {near}".encode())], trust).client == "192.0.2.7"
    far = f"192.0.2.7, 10.9.9.9, {near}"
    assert origin_of("10.0.0.1", [(b"x-forwarded-for", far.encode())], trust).client == "10.9.9.9"


def test_the_plan_knows_the_names_of_all_fields_that_the_gateway_writes() -> None:
    origin = origin_of("10.1.2.3", [HOST, (b"x-forwarded-for", b"198.51.100.7")], PROXIES)
    assert {b"x-request-id", *(name for name, _, _ in origin.via())} == GATEWAY_FIELDS_ALWAYS
    assert {name for name, _, _ in origin.forwarded_for()} == GATEWAY_FIELDS_FORWARDED


def test_only_short_forwarded_values_are_cached() -> None:
    trust = Networks(["10.0.0.0/8"])
    for length in (1, 30_000):
        fields = [(b"via", b"v" * length), (b"host", b"h" * 200), (b"x-forwarded-for", b"x" * length)]
        origin = origin_of("10.1.2.3", fields, trust)
        assert origin.via() == origin.via()
        assert origin.forwarded_for() == origin.forwarded_for()
        assert not trust.include("1" * length)
    assert max(len(before) for before, _ in client_origin._vias.entries) <= 256
    assert max(len(part) for key in client_origin._origins.entries for part in key) <= 256
    assert max(map(len, trust._known.entries)) <= 128


@pytest.mark.parametrize(
    ("before", "hops"),
    [
        ("junk", ()),
        ('x="y', ()),
        ('x="y=z\\', ()),
        ('"', ()),
        ('for="6.6.6.6, 7.7.7.7"', ()),
        ("for=6.6.6.6;for=7.7.7.7", ()),
        ("for=6.6.6.6,,", ("6.6.6.6",)),
        ('for="_x";a="b,\\"c;for=d"; b=";"', ("_x",)),
        (" ;; For=6.6.6.6 ; by=x;", ("6.6.6.6",)),
    ],
)
def test_the_last_member_of_forwarded_counts_whatever_stands_before_it(before: str, hops: tuple[str, ...]) -> None:
    value = f'{before}, for="203.0.113.9:1";by="a\\",\\\\";host="shop.example";proto=https, for=10.0.0.5'
    origin = origin_of("10.1.2.3", [HOST, (b"forwarded", value.encode())], PROXIES)
    assert (origin.client, origin.scheme, origin.host) == ("203.0.113.9", "https", "shop.example")
    assert origin.hops == (*hops, "203.0.113.9", "10.0.0.5")


@pytest.mark.parametrize("value", ["for=6.6.6.6, junk", "for=6.6.6.6, for", 'for=6.6.6.6, x="', "for=6.6.6.6, a=b;a=c"])
def test_a_malformed_last_member_of_forwarded_hides_all_members(value: str) -> None:
    origin = origin_of("10.1.2.3", [HOST, (b"forwarded", value.encode())], PROXIES)
    assert (origin.client, origin.scheme, origin.host, origin.hops) == ("10.1.2.3", "http", "shop.example", ())
