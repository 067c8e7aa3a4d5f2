"""Origins and replicas parsed from base URLs."""

from __future__ import annotations

import httpx
import pytest

from umbel.upstream.errors import BadRequest
from umbel.upstream.replicas.origin import Origin, Replica, origin_of


def test_the_tls_server_name_applies_to_https_only() -> None:
    assert Replica.parse("https://a", server_name="b").origin.sni == "b"
    assert Replica.parse("http://a", server_name="b").origin.sni is None


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
