"""The guard of the admin side: which requests are answered, by Host, origin and credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from umbel.admin.credentials import FAILED_AT_ONCE, ONE_TIME_MAX, ONE_TIME_S, Credentials, TokenCheck
from umbel.admin.guard import Exchange, Guard, Hosts, OriginGuard, Refusal, ScraperGuard, TcpGuard, UnixGuard

TOKEN = "configured-token"
OWN = b"127.0.0.1:9600"
SCRAPED = ScraperGuard("0.0.0.0:9464", "0.0.0.0:9464")
BEARER = {b"authorization": b"Bearer " + TOKEN.encode()}


@dataclass
class Request:
    """A request as far as a guard looks at it."""

    method: str
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    peer: tuple[str, int] | None = ("127.0.0.1", 4711)


def verdict(
    guard: Any, fields: dict[bytes, bytes] | None = None, method: str = "GET", target: bytes = b"/status", **more: Any
) -> int | str:
    """The status of the refusal; "exchange", or "passed"."""
    result = guard.check(Request(method, target, tuple((fields or {}).items()), **more))
    if result is None:
        return "passed"
    return "exchange" if isinstance(result, Exchange) else result.status


def tcp_guard(credentials: Credentials | None = None) -> TcpGuard:
    return TcpGuard(Hosts("127.0.0.1:9600", "127.0.0.1:9600"), credentials or Credentials(TOKEN), "9600", has_ctl=True)


@pytest.mark.parametrize(
    ("bound", "configured", "accepted", "refused"),
    [
        (
            "127.0.0.1:9600",
            "127.0.0.1:9600",
            ["127.0.0.1:9600", "localhost:9600", "LOCALHOST:9600", "[::1]:9600"],
            [
                "127.0.0.1",
                "localhost:9601",
                "evil.example:9600",
                "evil.example",
                "127.0.0.2:9600",
                "host.local:9600",
                "",
            ],
        ),
        ("[::1]:9600", "[::1]:9600", ["[::1]:9600", "localhost:9600"], ["[::2]:9600", "[::1]", "::1:9600"]),
        ("127.0.0.1:80", "localhost:80", ["localhost", "127.0.0.1:80", "[::1]"], ["localhost:81", "evil.example"]),
        (
            "192.0.2.7:9600",
            "admin.example:9600",
            ["192.0.2.7:9600", "admin.example:9600", "ADMIN.example:9600"],
            ["localhost:9600", "127.0.0.1:9600", "192.0.2.7:80", "other.example:9600", "host.local:9600"],
        ),
        (
            "0.0.0.0:9600",
            "0.0.0.0:9600",
            ["192.0.2.7:9600", "192.0.2.7:31000", "192.0.2.7", "[2001:db8::1]:9600", "Host.Local:9600", "localhost:1"],
            ["evil.example:9600", "host.local.evil.example", "1.2.3:9600", "2130706433.example:9600"],
        ),
        ("[::]:9600", "[::]:9600", ["[2001:db8::1]:9600", "127.0.0.1:9600", "host.local"], ["evil.example"]),
    ],
    ids=["loopback", "IPv6 loopback", "port 80", "address", "wildcard", "IPv6 wildcard"],
)
def test_only_hosts_of_the_bound_address_are_accepted(
    bound: str, configured: str, accepted: list[str], refused: list[str]
) -> None:
    hosts = Hosts(bound, configured, ["host.local"])
    assert [host for host in accepted if not hosts.accept(host.encode())] == []
    assert [host for host in refused if hosts.accept(host.encode())] == []


@pytest.mark.parametrize(
    ("fields", "method", "target", "expected"),
    [
        ({b"host": OWN}, "GET", b"/status", 401),
        ({b"host": OWN} | BEARER, "GET", b"/status", "passed"),
        ({b"host": OWN} | BEARER, "POST", b"/ctl/stop", "passed"),
        ({b"host": OWN, b"authorization": b"bearer  " + TOKEN.encode()}, "GET", b"/status", "passed"),
        ({b"host": OWN, b"authorization": b"Bearer wrong"}, "GET", b"/status", 401),
        ({b"host": OWN, b"authorization": b"Basic " + TOKEN.encode()}, "GET", b"/status", 401),
        ({b"host": OWN, b"authorization": b"Bearer "}, "GET", b"/status", 401),
        # Host comes first: a page under another name learns nothing, not even with a right token.
        ({b"host": b"evil.example:9600"} | BEARER, "GET", b"/status", 421),
        ({b"host": b"evil.example:9600"}, "GET", b"/?token=" + TOKEN.encode(), 421),
        ({} | BEARER, "GET", b"/status", 421),
        # Then the origin.
        ({b"host": OWN, b"origin": b"http://evil.example"} | BEARER, "POST", b"/ctl/stop", 403),
        ({b"host": OWN, b"origin": b"https://127.0.0.1:9600"} | BEARER, "POST", b"/ctl/stop", 403),
        ({b"host": OWN, b"origin": b"http://localhost:9600"} | BEARER, "POST", b"/ctl/stop", 403),
        ({b"host": OWN, b"origin": b"null"} | BEARER, "GET", b"/status", 403),
        ({b"host": OWN, b"origin": b"http://127.0.0.1:9600"} | BEARER, "POST", b"/ctl/stop", "passed"),
        ({b"host": OWN, b"sec-fetch-site": b"cross-site"} | BEARER, "GET", b"/status", 403),
        ({b"host": OWN, b"sec-fetch-site": b"same-site"} | BEARER, "GET", b"/status", 403),
        ({b"host": OWN, b"sec-fetch-site": b"none"} | BEARER, "GET", b"/status", "passed"),
        ({b"host": OWN, b"sec-fetch-site": b"same-origin"} | BEARER, "GET", b"/status", "passed"),
        # The token in the URL, of the page alone.
        ({b"host": OWN}, "GET", b"/?token=" + TOKEN.encode(), "exchange"),
        ({b"host": OWN}, "GET", b"/?x=1&token=%63onfigured-token", "exchange"),
        ({b"host": OWN, b"sec-fetch-site": b"cross-site"}, "GET", b"/?token=" + TOKEN.encode(), 403),
        ({b"host": OWN}, "GET", b"/?token=wrong", 401),
        ({b"host": OWN}, "GET", b"/?token=", 401),
        ({b"host": OWN}, "GET", b"/?" + b"x=1&" * 100 + b"token=" + TOKEN.encode(), 401),
        ({b"host": OWN}, "GET", b"/status?token=" + TOKEN.encode(), 401),
        ({b"host": OWN}, "HEAD", b"/?token=" + TOKEN.encode(), 401),
        ({b"host": OWN}, "POST", b"/?token=" + TOKEN.encode(), 401),
    ],
)
def test_a_request_over_tcp_passes_with_own_host_own_origin_and_a_token(
    fields: dict[bytes, bytes], method: str, target: bytes, expected: int | str
) -> None:
    assert verdict(tcp_guard(), fields, method, target) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b"host": OWN}, "passed"),
        ({b"host": OWN, b"origin": b"http://127.0.0.1:9600"}, "passed"),
        ({b"host": OWN, b"origin": b"http://127.0.0.1:9601"}, 403),
        ({b"host": OWN, b"sec-fetch-site": b"cross-site"}, 403),
        ({b"host": b"evil.example:9600"}, 421),
        ({}, 421),
    ],
)
def test_pages_without_secrets_need_own_host_and_origin_but_no_token(
    fields: dict[bytes, bytes], expected: int | str
) -> None:
    guard = OriginGuard(Hosts("127.0.0.1:9600", "127.0.0.1:9600"))
    assert verdict(guard, fields, "POST", b"/1/run") == expected


@pytest.mark.parametrize(
    ("cookie", "more", "method", "expected"),
    [
        (b"umbel-admin-9600=%s", {}, "GET", "passed"),
        (b"a=b; umbel-admin-9600=%s;c=d", {}, "GET", "passed"),
        (b"umbel-admin-9600=old; umbel-admin-9600=%s", {}, "GET", "passed"),
        (b"umbel-admin-9601=%s", {}, "GET", 401),
        (b"umbel-admin-9600=x%s", {}, "GET", 401),
        (b"umbel-admin-9600=", {}, "GET", 401),
        (b"umbel-admin-9600=%s", {}, "POST", 403),
        (b"umbel-admin-9600=%s", {b"origin": b"http://127.0.0.1:9600"}, "POST", "passed"),
        (b"umbel-admin-9600=%s", {b"origin": b"http://127.0.0.1:8000"}, "POST", 403),
        (b"umbel-admin-9600=%s", {b"origin": b"http://127.0.0.1:8000"}, "GET", 403),
        (b"umbel-admin-9600=%s", {b"sec-fetch-site": b"same-site"}, "GET", 403),
        (b"umbel-admin-9600=%s", {b"authorization": b"Bearer wrong"}, "GET", 401),
    ],
)
def test_the_cookie_is_enough_for_a_get_and_a_post_also_needs_an_origin(
    cookie: bytes, more: dict[bytes, bytes], method: str, expected: int | str
) -> None:
    credentials = Credentials(TOKEN)
    cookie = cookie.replace(b"%s", credentials.cookie.encode())
    target = b"/ctl/stop" if method == "POST" else b"/"
    assert verdict(tcp_guard(credentials), {b"host": OWN, b"cookie": cookie, **more}, method, target) == expected


def test_the_cookie_is_new_for_each_process_and_hidden_from_scripts_and_other_sites() -> None:
    first, second = Credentials(TOKEN), Credentials(TOKEN)
    assert first.cookie != second.cookie
    exchanged = tcp_guard(first).check(Request("GET", b"/?token=" + TOKEN.encode(), ((b"host", OWN),)))  # type: ignore[arg-type]
    assert isinstance(exchanged, Exchange)
    assert exchanged.cookie == f"umbel-admin-9600={first.cookie}; Path=/; HttpOnly; SameSite=Strict".encode()


def test_a_one_time_token_is_valid_once_for_ten_minutes_and_only_in_the_url() -> None:
    now = [0.0]
    credentials = Credentials(clock=lambda: now[0])
    guard = tcp_guard(credentials)
    once, late = credentials.new_one_time_token(), credentials.new_one_time_token()
    host = {b"host": OWN}
    assert verdict(guard, host | {b"authorization": f"Bearer {once}".encode()}) == 401
    assert verdict(guard, host, target=f"/?token={once}".encode()) == "exchange"
    assert verdict(guard, host, target=f"/?token={once}".encode()) == 401
    # A browser that has the cookie may open the URL again.
    cookie = {b"cookie": f"umbel-admin-9600={credentials.cookie}".encode()}
    assert verdict(guard, host | cookie, target=f"/?token={once}".encode()) == "exchange"
    now[0] = ONE_TIME_S
    assert verdict(guard, host, target=f"/?token={late}".encode()) == 401


@pytest.mark.parametrize("target", [b"/", b"/?token=wrong"])
def test_who_is_refused_is_told_where_to_get_a_new_url(target: bytes) -> None:
    request: Any = Request("GET", target, ((b"host", OWN),))
    hosts = Hosts("127.0.0.1:9600", "127.0.0.1:9600")
    for has_ctl in (True, False):  # Without the socket of umbel ctl nothing prints one.
        refusal = TcpGuard(hosts, Credentials(), "9600", has_ctl=has_ctl).check(request)
        assert isinstance(refusal, Refusal)
        assert ("`umbel ctl url`" in refusal.detail) is has_ctl


def test_the_number_of_one_time_tokens_is_bounded() -> None:
    credentials = Credentials()
    tokens = [credentials.new_one_time_token() for _ in range(ONE_TIME_MAX + 1)]
    results = [credentials.check_token(token.encode(), "client", one_time=True) for token in reversed(tokens)]
    assert results == [TokenCheck.RIGHT] * ONE_TIME_MAX + [TokenCheck.WRONG]


def test_wrong_tokens_block_their_client_alone_for_a_while() -> None:
    now = [0.0]
    credentials = Credentials(TOKEN, clock=lambda: now[0])

    def check(value: bytes, client: str) -> TokenCheck:
        return credentials.check_token(value, client, one_time=True)

    assert [check(b"wrong", "192.0.2.1") for _ in range(FAILED_AT_ONCE)] == [TokenCheck.WRONG] * FAILED_AT_ONCE
    assert check(TOKEN.encode(), "192.0.2.1") is TokenCheck.BLOCKED
    assert check(TOKEN.encode(), "192.0.2.2") is TokenCheck.RIGHT
    now[0] += 2
    assert [check(TOKEN.encode(), "192.0.2.1") for _ in range(100)] == [TokenCheck.RIGHT] * 100
    # All addresses of one IPv6 network are one client.
    assert {check(b"wrong", f"2001:db8::{number:x}") for number in range(FAILED_AT_ONCE)} == {TokenCheck.WRONG}
    assert check(TOKEN.encode(), "2001:db8::ffff") is TokenCheck.BLOCKED
    assert check(TOKEN.encode(), "2001:db8:0:1::1") is TokenCheck.RIGHT


def test_a_blocked_client_gets_429_and_its_cookie_goes_on() -> None:
    credentials = Credentials(TOKEN)
    guard = tcp_guard(credentials)
    for _ in range(FAILED_AT_ONCE):
        assert verdict(guard, {b"host": OWN, b"authorization": b"Bearer wrong"}) == 401
    assert verdict(guard, {b"host": OWN} | BEARER) == 429
    refusal = guard.check(Request("GET", b"/?token=x", ((b"host", OWN),)))  # type: ignore[arg-type]
    assert isinstance(refusal, Refusal)
    assert refusal.fields == ((b"retry-after", b"5"),)
    cookie = {b"cookie": f"umbel-admin-9600={credentials.cookie}".encode()}
    assert verdict(guard, {b"host": OWN} | cookie) == "passed"


@pytest.mark.parametrize(
    ("guard", "fields", "expected"),
    [
        (UnixGuard(), {b"host": b"anything"}, "passed"),
        (SCRAPED, {b"host": b"gateway.internal:9464"}, "passed"),
        (SCRAPED, {}, "passed"),
        (SCRAPED, {b"host": b"x", b"origin": b"http://x"}, 403),
        (SCRAPED, {b"host": b"x", b"origin": b"http://evil.example"}, 403),
        (SCRAPED, {b"host": b"x", b"sec-fetch-site": b"cross-site"}, 403),
        (SCRAPED, {b"host": b"x", b"sec-fetch-site": b"none"}, "passed"),
    ],
)
def test_the_unix_socket_and_the_address_for_scrapers_need_no_token(
    guard: Guard, fields: dict[bytes, bytes], expected: int | str
) -> None:
    assert verdict(guard, fields) == expected


@pytest.mark.parametrize("bound", ["127.0.0.1:9464", "127.0.1.1:9464", "[::1]:9464"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({b"host": host}, "passed") for host in (b"127.0.0.1:9464", b"LOCALHOST:9464", b"[::1]", b"127.0.1.1:31000")),
        ({b"host": b"gateway.local:9464"}, "passed"),
        # A page under a name of its own is same-origin with itself, so only Host tells (DNS rebinding).
        ({b"host": b"evil.example:9464", b"sec-fetch-site": b"same-origin"}, 421),
        *(({b"host": host}, 421) for host in (b"evil", b"localhost.evil.example", b"192.0.2.7:9464", b"0.0.0.0", b"")),
        ({}, 421),
        ({b"host": b"localhost:9464", b"origin": b"http://localhost:9464"}, 403),
        ({b"host": b"localhost:9464", b"sec-fetch-site": b"cross-site"}, 403),
    ],
)
def test_on_loopback_a_scraper_must_name_loopback_or_the_configured_name(
    bound: str, fields: dict[bytes, bytes], expected: int | str
) -> None:
    assert verdict(ScraperGuard(bound, "Gateway.local:9464"), fields) == expected
