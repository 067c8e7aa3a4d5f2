"""No credential, key or digest is in any output of a real gateway, whatever happens to the requests that bear them."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
from joserfc.jwk import OctKey
from quart import Response, request
from quart_trio import QuartTrio

from tests.support.auth.leaks import leaks
from tests.support.auth.oidc_provider import Provider, provided
from tests.support.auth.tokens import sign
from tests.support.gateway.configs import write
from tests.support.observe.otlp_receiver import Receiver, otlp_receiver
from tests.support.process.admin import ask_admin_bytes
from tests.support.process.processes import PYTHON, Child, ended, started
from tests.support.server.h2_client import h2_client
from tests.support.server.serving import connected, fetch, serving
from tests.support.server.ws_client import upgrade
from umbel.core.diagnostics.redact import API_KEY_PREFIX

UMBEL = (PYTHON, "-m", "umbel")
HMAC_ISSUER = "https://batch.example/"
# A handler that crashes, one that logs all it can see, and every library at level debug.
APP = """
import logging
from quart import request
from umbel import Umbel

logging.basicConfig(level=logging.DEBUG)
app = Umbel.from_file("umbel.toml", "served")
log = logging.getLogger("shop")


@app.get("/crash")
@app.requires("users", "partners", "machines")
async def crash():
    raise RuntimeError(f"nothing in stock for {request.url} with {request.headers} and {dict(request.cookies)}")


@app.get("/lost/<word>")
@app.requires("none")
async def lost(word):
    log.debug("asked for %s", word)
    raise RuntimeError(f"nothing is called {word}")


@app.get("/verbose")
@app.requires("users", "partners", "machines")
async def verbose():
    log.debug("asked %s %s %s", request.full_path, request.headers, request.cookies)
    log.info("asked %r", request.args, extra={"headers": list(request.headers), "cookies": dict(request.cookies)})
    return "fine"


@app.compose("/stream", auth="users")
async def stream(compose):
    raise ValueError(f"no stream for {request.url}, cookie={request.headers.get('cookie')}")
"""
CONFIG = """
[upstreams.id]
urls = ["http://127.0.0.1:{provider}"]
[upstreams.up]
urls = ["http://127.0.0.1:{upstream}"]
[upstreams.dead]
urls = ["http://127.0.0.1:{dead}"]
retry = {{ attempts = 2 }}

[auth.users]
kind = "jwt"
algorithms = ["ES256"]
from = ["header", "cookie:sid", "query:ticket"]
issuers = [{{ iss = "http://127.0.0.1:{provider}", jwks = {{ upstream = "id", path = "/jwks.json" }} }}]
[auth.lost]
kind = "jwt"
algorithms = ["ES256"]
from = ["header", "query:ticket"]
issuers = [{{ iss = "http://127.0.0.1:{provider}", jwks = {{ upstream = "dead", path = "/k" }} }}]
ready_without_keys = true
[auth.batch]
kind = "jwt"
algorithms = ["HS256"]
issuers = [{{ iss = "https://batch.example/", keys = "shared.json" }}]
[auth.partners]
kind = "api-key"
header = "x-partner"
file = "partners.toml"
[auth.machines]
kind = "mtls"
allow = ["spiffe://example.org/*"]

[server]
trusted_proxies = ["127.0.0.1"]

[logs.access]
format = "{format}"
slow = "1ms"
[logs.calls]
which = "all"
[logs.app]
level = "debug"

[traces]
otlp = "{collector}"
sample = "100%"

[[routes]]
path = "/orders"
auth = ["users", "batch", "partners", "machines"]
calls.part = {{ upstream = "up", path = "/", forward_headers = ["authorization"], forward_query = ["*"] }}
[[routes]]
path = "/admins"
auth = ["users", "batch", "partners", "machines"]
scopes = ["admin"]
calls.part = {{ upstream = "up", path = "/" }}
[[routes]]
path = "/refused/<name>"
auth = ["users", "batch", "partners", "machines"]
allow = "auth.claims.tenant == path.name"
calls.part = {{ upstream = "up", path = "/" }}
[[routes]]
path = "/unverified"
auth = "lost"
calls.part = {{ upstream = "up", path = "/" }}
[[routes]]
path = "/broken"
auth = ["users", "batch", "partners", "machines"]
calls.part = {{ upstream = "dead", path = "/", forward_headers = ["authorization", "cookie"], forward_query = ["*"] }}
[[routes]]
path = "/failing"
auth = ["users", "batch", "partners", "machines"]
calls.part = {{ upstream = "up", path = "/fail", forward_headers = ["authorization"] }}
[[routes]]
path = "/files/<path:rest>"
auth = ["users", "batch", "partners", "machines"]
proxy = {{ upstream = "up", websocket = true }}
[[routes]]
path = "/dead/<path:rest>"
auth = ["users", "batch", "partners", "machines"]
proxy = {{ upstream = "dead" }}
"""
PATHS = ("/orders", "/admins", "/refused/acme", "/unverified", "/broken", "/failing", "/files/a", "/dead/a", "/crash")
PATHS = (*PATHS, "/verbose", "/stream", "/nowhere")


class Planted:
    """The secrets of a test, and the fields and queries of requests that present them."""

    def __init__(self, provider: Provider) -> None:
        oct_key = OctKey.generate_key(512)
        tenant = secrets.token_urlsafe(24)
        valid = {name: provider.token("ada", tenant=tenant, jti=secrets.token_hex(16)) for name in ("a", "b", "c")}
        expired = provider.token("ada", exp=1, jti=secrets.token_hex(16))
        hmac_claims = {"iss": HMAC_ISSUER, "sub": "batch", "exp": 4_000_000_000, "jti": secrets.token_hex(16)}
        self.hmac_token = sign(oct_key, "HS256", hmac_claims)
        self.key = f"{API_KEY_PREFIX}{secrets.token_urlsafe(32)}"
        self.unknown_key = f"{API_KEY_PREFIX}{secrets.token_urlsafe(32)}"
        self.certificate = base64.b64encode(secrets.token_bytes(600)).decode()
        self.shared = json.dumps({"keys": [oct_key.as_dict(private=True)]})
        workload = secrets.token_urlsafe(24)
        forwarded = f'Hash={secrets.token_hex(32)};Cert="{quote(self.certificate, safe="")}"'
        forged = valid["a"].rpartition(".")[0] + "." + sign(oct_key, "HS256", {}).rpartition(".")[2]
        self.all = {
            "the token in the header": valid["a"],
            "the token in the cookie": valid["b"],
            "the token in the query": valid["c"],
            "the expired token": expired,
            "the forged token": forged,
            "the token with a shared key": self.hmac_token,
            "the shared key": str(oct_key.as_dict(private=True)["k"]),
            "the API key": self.key,
            "the unknown API key": self.unknown_key,
            "the digest of the API key": sha256(self.key.encode()).hexdigest(),
            "the client's certificate": self.certificate,
            "a name in the client's certificate": workload,
            "a claim": tenant,
        }
        bearers = [valid["a"], expired, forged, self.hmac_token, valid["a"][:-20]]
        self.presented: list[tuple[str, list[tuple[str, str]]]] = [
            *[("", [("authorization", f"Bearer {token}")]) for token in bearers],
            ("", [("cookie", f"theme=dark; sid={valid['b']}")]),
            ("", [("cookie", f"sid={expired}"), ("origin", "https://evil.example")]),
            (f"?ticket={valid['c']}&page=2", [("referer", f"https://app.example/?ticket={valid['c']}")]),
            (f"?page=2&ticket={expired}", []),
            (f"?tick%65t={valid['c']}&ticket={valid['c']}", []),
            ("", [("x-partner", self.key)]),
            ("", [("x-partner", self.unknown_key)]),
            ("", [("x-forwarded-client-cert", f"{forwarded};URI=spiffe://example.org/{workload}")]),
            ("", [("x-forwarded-client-cert", f"{forwarded};URI=spiffe://evil.example/{workload}")]),
            ("", [("x-forwarded-client-cert", f'{forwarded};Subject="{workload}')]),
        ]

    def files(self) -> dict[str, str]:
        digest = sha256(self.key.encode()).hexdigest()
        return {"shared.json": self.shared, "partners.toml": f'[[keys]]\nid = "acme"\nsha256 = "{digest}"\n'}


def upstream() -> QuartTrio:
    """An upstream that fails at ``/fail``, and otherwise says in which places it got a ticket."""
    app = QuartTrio(__name__, static_folder=None)

    @app.route("/fail")
    async def fail() -> Response:
        return Response("out of order", 500)

    @app.route("/", defaults={"rest": ""})
    @app.route("/<path:rest>")
    async def anything(rest: str) -> Response:
        return Response(json.dumps({"ticket": "ticket" in request.args}), 200, content_type="application/json")

    return app


@contextmanager
def refusing() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        yield receiver


@asynccontextmanager
async def gateway(
    directory: Path, log_format: str, *options: str, collector: str
) -> AsyncIterator[tuple[Child, int, Planted]]:
    """A gateway with the configuration, served by a real process within the block; its port and its secrets."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(provided(Provider(users={"ada": {"scope": "orders"}})))
        port = await stack.enter_async_context(serving(upstream()))
        dead = stack.enter_context(refusing())
        planted = Planted(provider)
        text = CONFIG.format(provider=provider.port, upstream=port, dead=dead, format=log_format, collector=collector)
        write(directory, text, {**planted.files(), "served.py": APP})
        command = (*UMBEL, "serve", "served:app", "--bind", "127.0.0.1:0", *options)
        server = await stack.enter_async_context(started(*command, cwd=directory))
        said = await server.line("master.ready" if options else "Umbel runs on")
        yield server, int(said.partition(" on http://127.0.0.1:")[2].split()[0]), planted


async def asked(port: int, planted: Planted) -> tuple[dict[str, bytes], set[int]]:
    """Present each credential on each path and in each way; return the responses and their statuses."""
    outputs: dict[str, bytes] = {}
    statuses: set[int] = set()
    for path in PATHS:
        for number, (query, fields) in enumerate(planted.presented):
            for method in ("GET", "POST"):
                reply = await fetch(port, method, path + query, fields)
                outputs[f"{method} {path} {number}"] = repr(reply.headers).encode() + reply.body
                statuses.add(reply.status)
    for key in (planted.key, planted.unknown_key):
        for path in (f"/lost/{key}", f"/lost/{key}?q={key}", f"/nowhere/{key}/x", f"/files/{key}", f"/dead/{key}"):
            # The response of the gateway itself may say which path it had; it goes to who has sent the key.
            statuses.add((await fetch(port, "GET", path, [("x-partner", planted.key)])).status)
    async with h2_client(port) as client:
        for path in PATHS:
            for number, (query, fields) in enumerate(planted.presented):
                answer = await client.fetch("GET", path + query, fields)
                outputs[f"HTTP/2 {path} {number}"] = repr(answer.headers).encode() + answer.body
    for number, (query, fields) in enumerate(planted.presented):
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        handshake = upgrade(f"/files/ws{query}".encode(), lines)
        malformed = f"GET /orders{query} HTTP/1.1\r\nhost: x\r\n".encode() + lines + b"bad field\r\n\r\n"
        too_long = f"GET /orders{query}{'x' * 20_000} HTTP/1.1\r\nhost: x\r\n".encode() + lines + b"\r\n"
        for name, head in {"handshake": handshake, "malformed": malformed, "too long": too_long}.items():
            async with connected(port) as raw:
                await raw.stream.send_all(head)
                with trio.move_on_after(30):
                    outputs[f"{name} {number}"] = await raw.stream.receive_some()
    return outputs, statuses


async def of_operators(directory: Path, planted: Planted) -> dict[str, bytes]:
    """What the commands of operators and the admin side show while the gateway runs."""
    outputs: dict[str, bytes] = {}
    for command in (
        ("ctl", "status"),
        ("ctl", "status", "--json"),
        ("ctl", "tree"),
        ("check",),
        ("check", "--json"),
        ("explain", "GET", "/orders"),
        ("explain", "GET", "/files/a", "--json"),
        ("logs", "tail", "-n", "all", "access"),
        ("logs", "stat", "access"),
    ):
        _, shown = await ended(*UMBEL, *command, cwd=directory)
        outputs[f"umbel {' '.join(command)}"] = shown.encode()
    credentials = ("-H", f"x-partner: {planted.key}", "-H", f"authorization: Bearer {planted.hmac_token}")
    asked_for = f"/orders?ticket={planted.all['the token in the query']}"
    _, shown = await ended(*UMBEL, "explain", "GET", asked_for, *credentials, cwd=directory)
    outputs["umbel explain of a request"] = shown.encode()
    socket_path = directory / "logs" / "admin.sock"
    for target in ("/", "/status", "/tree", "/slow", "/metrics", "/readyz"):
        _, outputs[f"admin {target}"] = await ask_admin_bytes(socket_path, "GET", target)
    kept = json.loads(outputs["admin /slow"])["requests"]
    assert len(kept) > 10
    for number, name in enumerate(each["id"] for each in kept):
        status, outputs[f"admin {name}"] = await ask_admin_bytes(socket_path, "GET", f"/slow/{name}")
        assert status == 200
        if number < 3:
            _, shown = await ended(*UMBEL, "slow", name, cwd=directory)
            outputs[f"umbel slow {name}"] = shown.encode()
    _, shown = await ended(*UMBEL, "slow", cwd=directory)
    outputs["umbel slow"] = shown.encode()
    return outputs


@pytest.mark.parametrize(
    ("log_format", "options"), [("json", ("-w", "1")), ("combined", ())], ids=["master, JSON", "process, combined"]
)
async def test_no_secret_is_in_any_output(
    log_format: str, options: tuple[str, ...], tmp_path: Path, receiver: Receiver
) -> None:
    async with gateway(tmp_path, log_format, *options, collector=receiver.url) as (server, port, planted):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.follow)
            outputs, statuses = await asked(port, planted)
            outputs |= await of_operators(tmp_path, planted)
            server.send(signal.SIGTERM)
        assert await server.end() == 0
        outputs["stdout and stderr"] = server.output.encode()
    files = [path for path in (tmp_path / "logs").rglob("*") if path.is_file()]
    outputs |= {f"logs/{path.name}": path.read_bytes() for path in files}
    outputs |= {f"spans {number}": each.SerializeToString() for number, each in enumerate(receiver.requests)}

    # The requests came to what they should, and were recorded with all that may be known of them.
    assert statuses >= {200, 400, 401, 403, 404, 500, 502, 503}
    assert not any(b'"ticket":true' in output or b'"ticket": true' in output for output in outputs.values())
    app_log = outputs["logs/app.jsonl"]
    expected = (b"nothing in stock for", b"asked /verbose", b"no stream for", b"nothing is called [redacted]")
    assert [each for each in expected if each not in app_log] == []
    if log_format == "json":
        assert all(
            each in outputs["logs/access.jsonl"]
            for each in (b'"auth.kind":"jwt"', b'"auth.kind":"mtls"', b'"auth.outcome":"expired"')
        )
    assert b'umbel_auth_requests_total{kind="api-key",outcome="unknown-key"}' in outputs["admin /metrics"]
    assert b"partners" in outputs["umbel ctl status"]
    assert {"GET /orders", "call part", "GET"} <= {span.name for span in receiver.spans}
    # Header blocks of HTTP/2 are in Huffman code, in which ``leaks`` finds nothing.
    assert [place for place, output in outputs.items() if b"hpack" in output] == []
    assert leaks(planted.all, outputs) == []


@pytest.mark.parametrize(
    "show",
    [
        lambda token: token,
        lambda token: token.rpartition(".")[2],
        lambda token: token[-30:].upper(),
        lambda token: token.encode().hex(),
        lambda token: base64.b64encode(f"x{token}".encode()).decode(),
        lambda token: base64.urlsafe_b64encode(token.encode()[-60:]).decode(),
        lambda token: sha256(token.encode()).hexdigest(),
    ],
    ids=["whole", "signature", "end", "hexadecimal", "base64", "base64 of the end", "digest"],
)
def test_the_search_finds_a_secret_in_each_form(show: Iterator[str]) -> None:
    token = sign(OctKey.generate_key(512), "HS256", {"sub": "ada"})

    assert leaks({"it": token}, {"log": f"before {show(token)} after".encode()}) != []
    assert leaks({"it": token}, {"log": token.partition(".")[0].encode()}) == []
