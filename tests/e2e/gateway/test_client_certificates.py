"""A route for client certificates over real TLS: before Quart and through it, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import datetime
import ssl
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.support.server.h2_client import H2Client
from tests.support.server.serving import RawClient, serving
from umbel.auth import from_config
from umbel.auth.certificates.client_certificates import MtlsAuthenticator
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel

AUTHORITY = trustme.CA()
FORWARDED = ("x-forwarded-client-cert", "DNS=forwarded.internal")
ROUTE = {"path": "/r", "auth": "machines", "answer": {"shape": "auth.sub"}}


def app(hooks: str, trusted: bool) -> Umbel:
    return Umbel(
        __name__,
        Config.model_validate(
            {
                "auth": {"machines": {"kind": "mtls", "allow": ["dns:*.internal"]}},
                "server": {"hooks": hooks, "trusted_proxies": ["127.0.0.1"] if trusted else []},
                "routes": [ROUTE],
            }
        ),
    )


def settings(directory: Path) -> dict[str, Any]:
    pair = AUTHORITY.issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    pair.private_key_pem.write_to_path(directory / "key.pem")
    AUTHORITY.cert_pem.write_to_path(directory / "ca.pem")
    files = {"certfile": "cert.pem", "keyfile": "key.pem", "ca_certs": "ca.pem"}
    return {**{key: str(directory / name) for key, name in files.items()}, "verify_mode": ssl.CERT_OPTIONAL}


async def asked(port: int, protocol: str, name: str | None, *fields: tuple[str, str]) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.set_alpn_protocols([protocol])
    if name is not None:
        AUTHORITY.issue_cert(name).configure_cert(context)
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True) as stream:
        await stream.do_handshake()
        if protocol == "h2":
            client = H2Client(stream)
            await client.begin()
            answer = await client.fetch("GET", "/r", fields)
            return answer.status, answer.body
        lines = "".join(f"{key}: {value}\r\n" for key, value in fields)
        await stream.send_all(f"GET /r HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        reply = await RawClient(stream).reply()  # type: ignore[arg-type]  # It has the same methods.
        return reply.status, reply.body


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("hooks", ["auto", "all"])
async def test_the_certificate_of_the_handshake_lets_a_client_in(hooks: str, protocol: str, tmp_path: Path) -> None:
    async with serving(app(hooks, trusted=False), **settings(tmp_path)) as port:
        assert await asked(port, protocol, "batch.internal") == (200, b'"batch.internal"')
        assert await asked(port, protocol, "batch.internal", FORWARDED) == (200, b'"batch.internal"')
        assert [(await asked(port, protocol, name, FORWARDED))[0] for name in ("batch.example", None)] == [401, 401]


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("hooks", ["auto", "all"])
async def test_a_trusted_proxy_speaks_for_its_clients_and_not_for_itself(
    hooks: str, protocol: str, tmp_path: Path
) -> None:
    async with serving(app(hooks, trusted=True), **settings(tmp_path)) as port:
        for proxy in ("proxy.internal", None):
            assert await asked(port, protocol, proxy, FORWARDED) == (200, b'"forwarded.internal"')
        assert (await asked(port, protocol, "proxy.internal"))[0] == 401


async def answer_of(stream: trio.SSLStream[trio.SocketStream]) -> tuple[int, bytes]:
    await stream.send_all(b"GET /r HTTP/1.1\r\nHost: localhost\r\n\r\n")
    reply = await RawClient(stream).reply()  # type: ignore[arg-type]  # It has the same methods.
    return reply.status, reply.body


async def test_an_expired_certificate_is_refused_on_kept_and_resumed_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(from_config, "MtlsAuthenticator", partial(MtlsAuthenticator, wall=lambda: now))
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    AUTHORITY.issue_cert("batch.internal", not_after=end).configure_cert(context)
    async with serving(app("auto", trusted=False), **settings(tmp_path)) as port:

        async def opened(session: ssl.SSLSession | None = None) -> trio.SSLStream[trio.SocketStream]:
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
            if session is not None:
                stream.session = session
            await stream.do_handshake()
            return stream

        kept = await opened()
        assert await answer_of(kept) == (200, b'"batch.internal"')
        resumed = await opened(kept.session)
        assert (resumed.session_reused, await answer_of(resumed)) == (True, (200, b'"batch.internal"'))
        now += 7200
        late = await opened(resumed.session)
        for stream in (kept, resumed, late):
            status, body = await answer_of(stream)
            assert (status, b"The client certificate has expired." in body) == (401, True)
            await trio.aclose_forcefully(stream)
        assert late.session_reused
