"""Origins and replicas parsed from base URLs."""

from __future__ import annotations

import httpx
import pytest

from umbel.upstream.errors import BadRequest
from umbel.upstream.replicas.origin import Origin, Replica, origin_of


def test_the_tls_server_name_applies_to_https_only() -> None:
    assert Replica.parse("https://a", server_name="b").origin.sni == "b"
    assert Replica.parse("http://a", server_name="b").origin.sni is None


@pytest.mark.parametrize(
    ("url", "host", "server_name", "field", "sni"),
    [
        ("https://10.0.0.7:8443/v1", "api.internal", None, b"api.internal", "api.internal"),
        ("https://10.0.0.7", "api.internal:8443", None, b"api.internal:8443", "api.internal"),
        ("https://10.0.0.7", "[::1]:8443", None, b"[::1]:8443", "::1"),
        ("https://10.0.0.7", "api.internal", "tls.internal", b"api.internal", "tls.internal"),
        ("http://10.0.0.7", "api.internal", None, b"api.internal", None),
        ("unix:/run/a.sock", "api.internal", None, b"api.internal", None),
        ("https://a:8443", None, None, b"a:8443", None),
    ],
)
def test_the_host_field_can_differ_from_the_url_and_names_the_tls_server(
    url: str, host: str | None, server_name: str | None, field: bytes, sni: str | None
) -> None:
    replica, plain = Replica.parse(url, server_name=server_name, host=host), Replica.parse(url)
    assert (replica.host, replica.origin.sni) == (field, sni)
    assert (replica.origin.host, replica.origin.port) == (plain.origin.host, plain.origin.port)


def test_hosts_are_idna_and_schemes_are_http_and_https() -> None:
    assert origin_of(httpx.URL("http://bücher.example")) == Origin("http", "xn--bcher-kva.example", 80)
    assert origin_of(httpx.URL("https://a")).where == "a:443"
    for url in ("ftp://a", "/a", "http://", "ws://a"):
        with pytest.raises(BadRequest):
            origin_of(httpx.URL(url))


@pytest.mark.parametrize(
    "url", ["unix:", "unix:run/a.sock", "http://a?x=1", "http://a/b?", "http://a#b", "http://user@a", "http://u:pw@a/b"]
)
def test_a_base_url_with_another_part_or_a_relative_socket_path_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as raised:
        Replica.parse(url)
    assert "pw" not in str(raised.value)
