"""Fixtures of the tests of streaming calls: the same test without and with TLS."""

from __future__ import annotations

import ssl

import pytest
import trustme


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, ca: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """The contexts of the upstream and of its client; None without TLS."""
    if request.param == "plain":
        return None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client
