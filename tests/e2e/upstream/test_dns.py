"""Replicas from DNS, asked of a server of the test's own on loopback.

The clock is the virtual one: what loopback carries is there before the clock would jump.
"""

from __future__ import annotations

import dns.name
import dns.nameserver
import dns.rcode
import dns.resolver
import pytest
import trio
import trio.testing

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.nameserver import NameServer, Zone, nameserver
from umbel.core.failure_kinds import Kind
from umbel.upstream.errors import AddressRefused, NameFailed, NameTimedOut
from umbel.upstream.replicas.dns import REPLICAS_MAX, DnsReplicas

URL = "dns+http://users.test:8080/base"


def replicas_of(server: NameServer, url: str = URL, **options: object) -> DnsReplicas:
    return DnsReplicas(url, nameservers=server.at, **options)  # type: ignore[arg-type]  # each test gives what fits


def addresses(source: DnsReplicas) -> list[str]:
    assert source.changes.value is source.replicas
    assert source.weights == (1,) * len(source.replicas)
    return [replica.origin.host for replica in source.replicas]


# The set of replicas


async def test_every_address_of_both_families_is_a_replica(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.10", "127.0.0.2"], aaaa=["::1", "2001:db8::1"])
    async with nameserver({"users.test": zone}) as server, replicas_of(server) as source:
        assert addresses(source) == ["127.0.0.2", "127.0.0.10", "::1", "2001:db8::1"]
        statistics = source.statistics()
        assert (statistics.name, statistics.addresses) == ("users.test", tuple(addresses(source)))
        assert (statistics.lookups, statistics.failed_in_a_row, statistics.failure) == (1, 0, "")


async def test_a_replica_connects_to_the_address_and_sends_the_name_as_host(autojump_clock) -> None:
    zones = {"users.test": Zone(a=["127.0.0.2"])}
    async with nameserver(zones) as server:
        async with replicas_of(server) as source:
            (plain,) = source.replicas
        assert plain.name == "http://users.test:8080/base at 127.0.0.2"
        assert (plain.origin.scheme, plain.origin.host, plain.origin.port) == ("http", "127.0.0.2", 8080)
        assert (plain.host, plain.base, plain.origin.sni) == (b"users.test:8080", b"/base", None)
        async with replicas_of(server, "dns+https://users.test") as source:
            (secure,) = source.replicas
        assert (secure.origin.port, secure.origin.sni, secure.host) == (443, "users.test", b"users.test")
        async with replicas_of(server, "dns+https://users.test", server_name="other.test") as source:
            assert [replica.origin.sni for replica in source.replicas] == ["other.test"]
        async with replicas_of(server, "dns+https://users.test", host="other.test:1") as source:
            (named,) = source.replicas
        assert (named.host, named.origin.sni) == (b"other.test:1", "other.test")


async def test_an_absolute_name_is_looked_up_with_its_dot_and_sent_without_the_dot(autojump_clock) -> None:
    zones = {"users.test": Zone(a=["127.0.0.2"])}
    async with nameserver(zones) as server, replicas_of(server, "dns+http://users.test.:8080") as source:
        assert [(each.host, each.name) for each in source.replicas] == [
            (b"users.test:8080", "http://users.test:8080 at 127.0.0.2")
        ]


async def test_link_local_and_multicast_addresses_are_never_replicas(autojump_clock) -> None:
    zone = Zone(
        a=["127.0.0.2", "169.254.169.254", "224.0.0.1"],
        aaaa=["fe80::1", "ff02::1", "::ffff:169.254.169.254", "fd00::1"],
    )
    async with nameserver({"users.test": zone}) as server, replicas_of(server) as source:
        assert addresses(source) == ["127.0.0.2", "fd00::1"]
        assert source.statistics().refused == 5


async def test_with_public_only_other_addresses_are_no_replicas(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2", "10.0.0.1", "8.8.8.8"], aaaa=["::1", "fd00::1", "2606:4700::1111"])
    async with nameserver({"users.test": zone}) as server, replicas_of(server, public_only=True) as source:
        assert addresses(source) == ["8.8.8.8", "2606:4700::1111"]


async def test_a_name_with_only_prohibited_addresses_has_no_replicas(autojump_clock) -> None:
    async with nameserver({"users.test": Zone(a=["169.254.169.254"])}) as server, replicas_of(server) as source:
        missing = source.missing()
        assert (addresses(source), type(missing), missing.kind) == ([], AddressRefused, Kind.CONNECT)
        assert missing is not source.missing(), "each call raises its own"


async def test_addresses_beyond_the_bound_are_counted_and_fetched_over_tcp(autojump_clock) -> None:
    many = [f"127.0.{high}.{low}" for high in range(2) for low in range(1, 200)]
    async with nameserver({"users.test": Zone(a=many, truncated=True)}) as server, replicas_of(server) as source:
        assert addresses(source) == many[:REPLICAS_MAX]
        assert source.statistics().excess == len(many) - REPLICAS_MAX


# Repeated look-ups


async def test_the_name_is_looked_up_again_when_its_ttl_has_passed(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2", "127.0.0.3"], ttl=30)
    async with nameserver({"users.test": zone}) as server:
        started = trio.current_time()
        async with replicas_of(server) as source:
            before = source.replicas
            zone.a = ["127.0.0.3", "127.0.0.4"]
            with trio.fail_after(31):
                await source.changes.wait_transition()
            assert trio.current_time() == started + 30
            assert addresses(source) == ["127.0.0.3", "127.0.0.4"]
            assert source.replicas[0] is before[1], "who stays is the same object"


async def test_a_set_in_another_order_is_the_same_set(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2", "127.0.0.3"], ttl=5)
    async with nameserver({"users.test": zone}) as server, replicas_of(server) as source:
        before = source.replicas
        zone.a.reverse()
        await trio.sleep(12)
        assert len(server.times()) == 3
        assert source.replicas is before


@pytest.mark.parametrize(("ttl", "pause"), [(0, 1), (1, 1), (7, 7), (60, 60), (86400, 60)])
async def test_a_ttl_is_bounded_to_a_second_and_a_minute(ttl: int, pause: int, autojump_clock) -> None:
    async with nameserver({"users.test": Zone(a=["127.0.0.2"], ttl=ttl)}) as server:
        started = trio.current_time()
        async with replicas_of(server):
            await trio.sleep_until(started + 3 * pause - 0.5)
        assert [time - started for time in server.times()] == [0, pause, 2 * pause]
        assert server.times() == server.times("AAAA")


async def test_the_ttl_of_an_alias_counts(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2"], ttl=50, alias=("real.test", 4))
    async with nameserver({"users.test": zone}) as server:
        started = trio.current_time()
        async with replicas_of(server) as source:
            assert addresses(source) == ["127.0.0.2"]
            await trio.sleep(5)
        assert [time - started for time in server.times()] == [0, 4]


# Failed look-ups

BROKEN = {
    "SERVFAIL": Zone(rcode=dns.rcode.SERVFAIL),
    "REFUSED": Zone(rcode=dns.rcode.REFUSED),
    "NXDOMAIN": Zone(rcode=dns.rcode.NXDOMAIN),
    "no address": Zone(),
    "garbage": Zone(garbage=True),
    "only refused addresses": Zone(a=["169.254.0.1"]),
    "an alias to itself": Zone(alias=("users.test", 5)),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_failed_lookup_keeps_the_set_and_is_repeated_with_backoff(broken: Zone, autojump_clock) -> None:
    good = Zone(a=["127.0.0.2"], ttl=10)
    async with nameserver({"users.test": good}) as server, replicas_of(server, timeout=0.25) as source:
        before = source.replicas
        server.zones["users.test"] = broken
        await trio.sleep(10.5)
        assert source.statistics().failed_in_a_row == 1
        assert source.statistics().failure.startswith("users.test: ")
        await trio.sleep(20)
        assert source.replicas is before
        assert source.statistics().failed_in_a_row >= 3
        server.zones["users.test"] = Zone(a=["127.0.0.3"])
        await trio.sleep(60)
        assert addresses(source) == ["127.0.0.3"]
        assert (source.statistics().failed_in_a_row, source.statistics().failure) == (0, "")


async def test_the_pauses_after_failures_double_up_to_the_ceiling(autojump_clock) -> None:
    async with nameserver({}) as server:
        started = trio.current_time()
        async with replicas_of(server, ttl_max=10.0) as source:
            await trio.sleep(40)
            assert type(source.missing()) is NameFailed
        assert [time - started for time in server.times()] == [0, 1, 3, 7, 15, 25, 35]


async def test_the_wait_for_a_silent_name_server_is_limited(autojump_clock) -> None:
    zone = Zone(silent=frozenset({"A", "AAAA"}))
    async with nameserver({"users.test": zone}) as server:
        started = trio.current_time()
        async with replicas_of(server, timeout=3.0) as source:
            assert trio.current_time() == started + 1.0, "a start is not held up for longer"
            assert source.missing().detail == "users.test: the first look-up has not ended yet"
            await trio.sleep(2.5)
            missing = source.missing()
            assert (type(missing), missing.kind, missing.proxy_error) == (NameTimedOut, Kind.DNS, "dns_timeout")
            zone.a, zone.silent = ["127.0.0.2"], frozenset()
            await trio.sleep(1)
            assert addresses(source) == ["127.0.0.2"]


async def test_the_wait_for_an_answer_that_drips_over_tcp_is_limited(autojump_clock) -> None:
    zone = Zone(["127.0.0.2"], truncated=True, dripping=True)
    async with nameserver({"users.test": zone}) as server, replicas_of(server, timeout=3.0) as source:
        await trio.sleep(2.5)
        assert source.missing().proxy_error == "dns_timeout"


async def test_if_one_family_fails_its_addresses_stay_and_the_other_is_updated(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2"], aaaa=["::1"], ttl=10)
    async with nameserver({"users.test": zone}) as server, replicas_of(server, timeout=2.0) as source:
        zone.a, zone.aaaa, zone.silent = ["127.0.0.3"], [], frozenset({"AAAA"})
        await trio.sleep(13)
        assert addresses(source) == ["127.0.0.3", "::1"]
        assert source.statistics().failed_in_a_row == 1
        zone.silent = frozenset()
        await trio.sleep(10)
        assert addresses(source) == ["127.0.0.3"]
        assert source.statistics().failed_in_a_row == 0


# Entering and leaving


async def test_lookups_are_made_only_while_the_source_is_entered(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2"], ttl=1)
    async with nameserver({"users.test": zone}) as server:
        source = replicas_of(server)
        await trio.sleep(5)
        assert server.asked == []
        async with source:
            async with source:
                pass
            await trio.sleep(2.5)
            assert len(server.times()) == 3
        await trio.sleep(5)
        assert len(server.times()) == 3
        zone.a = ["127.0.0.3"]
        async with source:
            assert addresses(source) == ["127.0.0.3"]


async def test_a_lookup_cancelled_at_any_point_leaves_nothing(autojump_clock) -> None:
    zone = Zone(a=["127.0.0.2"], ttl=1)
    async with nameserver({"users.test": zone}) as server:

        async def whole_lifetime() -> None:
            async with replicas_of(server) as source:
                await trio.sleep(1.5)
                assert addresses(source) == ["127.0.0.2"]

        async def check() -> None:
            asked = len(server.asked)
            await trio.sleep(5)
            assert len(server.asked) <= asked + 1, "a question may still have been under way"

        assert await for_every_checkpoint(whole_lifetime, check) > 5


async def test_by_default_the_systems_name_servers_are_used_and_read_again_after_a_failure(
    monkeypatch, autojump_clock
) -> None:
    read: list[str] = []
    async with nameserver({}) as server:

        def read_conf(resolver: dns.resolver.BaseResolver, file: str) -> None:
            read.append(file)
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*server.at[0])]
            resolver.search = [dns.name.from_text("cluster.test")]

        monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_conf)
        monkeypatch.setenv("LOCALDOMAIN", "elsewhere.test")
        async with DnsReplicas("dns+http://users") as source:
            assert addresses(source) == []
            server.zones["users.cluster.test"] = Zone(a=["127.0.0.2"], ttl=1)
            await trio.sleep(10)
            assert addresses(source) == ["127.0.0.2"]
    assert read == ["/etc/resolv.conf"] * 2
    assert {name for name, _, _ in server.asked} <= {"users", "users.cluster.test"}


async def test_a_system_without_name_servers_is_a_failed_lookup(monkeypatch, autojump_clock) -> None:
    def read_conf(resolver: dns.resolver.BaseResolver, file: str) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_conf)
    async with DnsReplicas(URL) as source:
        assert source.missing().kind is Kind.DNS
        await trio.sleep(10)
        assert source.statistics().failed_in_a_row == 4
