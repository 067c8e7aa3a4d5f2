"""Prohibited addresses, name resolution, and Happy Eyeballs."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from umbel.core.failure_kinds import Kind
from umbel.upstream.errors import AddressRefused, ConnectFailed, NameFailed
from umbel.upstream.replicas.address import STAGGER, Address, connect, is_prohibited, resolve

ALWAYS = [
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "fe80::1",
    "fe80::1%lo",
    "febf::1",
    "ff02::1",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2a00::5efe:169.254.169.254",
    "2a00::200:5efe:169.254.169.254",
    "::ffff:224.0.0.1",
]
NOT_PUBLIC = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "255.255.255.255",
    "240.0.0.1",
    "198.18.0.1",
    "::1",
    "::",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:a00:1::1",
    "2a00::5efe:10.0.0.1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("text", ALWAYS)
def test_link_local_and_multicast_addresses_are_prohibited_in_every_embedding(text: str) -> None:
    assert is_prohibited(text, public_only=False)
    assert is_prohibited(text, public_only=True)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_prohibited_with_public_only(text: str) -> None:
    assert not is_prohibited(text, public_only=False)
    assert is_prohibited(text, public_only=True)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert not is_prohibited(text, public_only=True)


class Resolver(trio.abc.HostnameResolver):
    def __init__(self, *addresses: str, error: Exception | None = None) -> None:
        self._addresses = addresses
        self._error = error
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error
        rows = []
        for text in self._addresses:
            v6 = ":" in text
            sockaddr = (text, port, 0, 0) if v6 else (text, port)
            rows.append((socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM, 6, "", sockaddr))
        return rows

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


def use(resolver: Resolver) -> Resolver:
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


async def test_address_families_alternate_beginning_with_the_first_address() -> None:
    use(Resolver("2606::1", "2606::2", "2606::2", "8.8.8.8", "8.8.4.4"))
    found = await resolve("name.example", 80, public_only=True)
    assert [address.sockaddr[0] for address in found] == ["2606::1", "8.8.8.8", "2606::2", "8.8.4.4"]


async def test_prohibited_addresses_are_left_out_and_a_name_with_no_other_is_refused() -> None:
    use(Resolver("169.254.169.254", "127.0.0.1"))
    assert [str(each) for each in await resolve("name.example", 80, public_only=False)] == ["127.0.0.1 port 80"]
    with pytest.raises(AddressRefused) as caught:
        await resolve("name.example", 80, public_only=True)
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.CONNECT, "destination_ip_prohibited")


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
async def test_a_name_without_an_address_is_a_dns_failure(error: Exception) -> None:
    use(Resolver(error=error))
    with pytest.raises(NameFailed) as caught:
        await resolve("name.example", 80, public_only=False)
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.DNS, "dns_error")


async def test_a_literal_address_is_checked_like_any_other() -> None:
    with pytest.raises(AddressRefused):
        await resolve("169.254.169.254", 80, public_only=False)


class FakeSocket:
    """Connects, fails or hangs by its address."""

    made: list[FakeSocket]

    def __init__(self, family: int, kind: int) -> None:
        self.closed = False
        self.connected_at: float | None = None
        FakeSocket.made.append(self)

    async def connect(self, sockaddr: tuple[str, int]) -> None:
        match sockaddr[0]:
            case "refused":
                await trio.lowlevel.checkpoint()
                raise OSError(errno.ECONNREFUSED, "Connection refused")
            case "slow":
                await trio.sleep(1)
            case "silent":
                await trio.sleep_forever()
            case _:
                await trio.lowlevel.checkpoint()
        self.connected_at = trio.current_time()

    def close(self) -> None:
        self.closed = True


class FakeStream:
    def __init__(self, sock: FakeSocket) -> None:
        self.socket = sock


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[FakeSocket]:
    FakeSocket.made = []
    monkeypatch.setattr(trio.socket, "socket", FakeSocket)
    monkeypatch.setattr(trio, "SocketStream", FakeStream)
    return FakeSocket.made


def addresses(*names: str) -> list[Address]:
    return [Address(socket.AF_INET, (name, 80)) for name in names]


async def test_the_next_address_is_tried_after_the_stagger(sockets: list[FakeSocket], autojump_clock) -> None:
    start = trio.current_time()
    stream = await connect(addresses("silent", "good"))
    assert trio.current_time() - start == pytest.approx(STAGGER)
    assert stream.socket is sockets[1]
    assert [each.closed for each in sockets] == [True, False]


async def test_a_refused_connect_starts_the_next_one_at_once(sockets: list[FakeSocket], autojump_clock) -> None:
    start = trio.current_time()
    stream = await connect(addresses("refused", "refused", "good"))
    assert trio.current_time() == start
    assert stream.socket is sockets[2]


async def test_the_first_address_that_accepts_wins(sockets: list[FakeSocket], autojump_clock) -> None:
    stream = await connect(addresses("slow", "silent", "silent"))
    assert stream.socket is sockets[0]
    assert [each.closed for each in sockets] == [False, True, True]


async def test_if_all_addresses_refuse_the_error_names_all(sockets: list[FakeSocket], autojump_clock) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await connect(addresses("refused", "refused"))
    assert caught.value.detail.count("refused port 80") == 2
    assert caught.value.proxy_error == "connection_refused"
    assert all(each.closed for each in sockets)


async def test_a_cancel_while_connecting_closes_every_socket(sockets: list[FakeSocket], autojump_clock) -> None:
    with trio.move_on_after(0.6) as scope:
        await connect(addresses("silent", "silent", "silent"))
    assert scope.cancelled_caught
    assert len(sockets) == 3
    assert all(each.closed for each in sockets)


async def test_a_cancel_while_connecting_to_a_single_address_closes_its_socket(
    sockets: list[FakeSocket], autojump_clock
) -> None:
    with trio.move_on_after(1):
        await connect(addresses("silent"))
    assert [each.closed for each in sockets] == [True]
