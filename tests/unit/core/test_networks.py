"""Networks and admission: which peers a list of networks holds, and which peers may make requests."""

from __future__ import annotations

import pytest

from umbel.core.networks import Admission, Networks

PEERS = Networks(["10.0.0.0/8", "::1"])


def test_an_ipv4_peer_written_as_ipv6_is_the_same_peer() -> None:
    assert PEERS.include("10.0.0.1")
    assert PEERS.include("::ffff:10.0.0.1")
    assert PEERS.include("::1")
    assert not PEERS.include("::2")


@pytest.mark.parametrize("peer", [None, "", "nonsense", "010.0.0.1", "10.0.0", "10.0.0.1.", "167772161"])
def test_a_peer_without_a_valid_address_is_in_no_network(peer: str | None) -> None:
    assert not PEERS.include(peer)


def test_unix_includes_the_peers_of_a_unix_socket_only() -> None:
    assert Networks(["unix"]).include(None)
    assert not Networks(["unix"]).include("127.0.0.1")


def test_an_empty_list_includes_no_peer() -> None:
    assert Networks([]).is_empty
    assert not Networks([]).include("127.0.0.1")


@pytest.mark.parametrize(
    ("allow", "deny", "admitted", "refused"),
    [
        ([], [], ["10.0.0.1", "::1", None], []),
        (["10.0.0.0/8"], [], ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "::1", None]),
        ([], ["10.0.0.0/8"], ["11.0.0.1", "::1", None], ["10.1.2.3", "::ffff:10.1.2.3"]),
        (["10.0.0.0/8"], ["10.9.0.0/16"], ["10.1.2.3"], ["10.9.0.1", "11.0.0.1"]),
        (["10.9.0.0/16"], ["10.0.0.0/8"], [], ["10.9.0.1"]),
        (["unix"], [], [None], ["127.0.0.1"]),
        ([], ["unix"], ["127.0.0.1"], [None]),
        (["0.0.0.0/0"], [], ["1.2.3.4"], ["::1", "nonsense"]),
        ([], ["::ffff:10.0.0.0/104"], ["11.0.0.1", "::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        ([], ["::ffff:10.0.0.1"], ["10.0.0.2"], ["10.0.0.1", "::ffff:a00:1"]),
        ([], ["::ffff:0:0/96"], ["::1", "::fffe:1.2.3.4"], ["1.2.3.4"]),
        (["::ffff:10.0.0.0/104"], [], ["10.0.0.1", "::ffff:10.0.0.1"], ["11.0.0.1", "::1"]),
        ([], ["::/0"], ["10.0.0.1", "::ffff:10.0.0.1"], ["::1"]),
    ],
)
def test_a_peer_is_admitted_if_it_is_allowed_and_not_denied(
    allow: list[str], deny: list[str], admitted: list[str | None], refused: list[str | None]
) -> None:
    admission = Admission(allow, deny)
    assert admission.is_for_all is not bool(allow or deny)
    assert [peer for peer in (*admitted, *refused) if admission.admits(peer)] == admitted
