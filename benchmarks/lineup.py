"""The gateways that ``gateways.py`` compares: their requirements, how each is started, and where its log lines are.

Their code and configuration are in ``peers/``. This module measures nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers.umbel_toml import configuration

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
BIN = Path(sys.executable).parent
BUILT = BIN.parent / "krakend"
MODULES = Path("/usr/lib/nginx/modules")
COUNTS = (1, 10, 50)
CLIENTS = 16
KRAKEND_MODULE = "github.com/krakend/krakend-ce/v2/cmd/krakend-ce@v2.13.1"
BUILD_S = 600.0


class Absent(Exception):  # noqa: N818 - not an error: the others are compared without it
    """A gateway cannot be run on this machine; the text says why."""


@dataclass(frozen=True)
class Spot:
    """The settings of a gateway: its directory, its port and the upstream's, all on loopback."""

    directory: Path
    port: int
    upstream: int

    def environment(self) -> dict[str, str]:
        return {
            "UPSTREAM": f"http://127.0.0.1:{self.upstream}",
            "PORT": str(self.port),
            "LOG": str(self.directory / "access.log"),
            "NODE_ENV": "production",
            "GOMAXPROCS": "1",
        }

    def written(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return str(path)


@dataclass(frozen=True)
class Gateway:
    """One of the compared gateways."""

    name: str
    prepare: Callable[[], str]
    """Gets what it needs and says what it is made of, with versions. ``Absent`` if it cannot be had."""
    command: Callable[[Spot], list[str]]
    log: str = "access.log"
    """Where its lines are, one per request: a pattern in its directory."""
    mark: bytes = b""
    """What these lines begin with, where there are others between them."""


def tool(name: str) -> str:
    """Return the path of a program; raises ``Absent`` if there is none."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/go/bin")))
    if found is None:
        raise Absent(f"there is no {name} here")
    return found


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def packages(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def built(what: str, command: list[str], **options: Any) -> None:
    """Run a build; raises ``Absent`` if it fails, for want of network, compiler or version."""
    print(f"building what is compared: {what} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_S, **options)
    except subprocess.TimeoutExpired as error:
        raise Absent(f"building {what} took longer than {BUILD_S:g} s") from error
    if done.returncode:
        print((done.stderr or done.stdout)[-1000:], file=sys.stderr, flush=True)
        raise Absent(f"{what} could not be built")


# In Python


def _umbel_made_of() -> str:
    return (
        f"`umbel serve`, one process and nothing but its configuration ({packages('umbel', 'trio', 'httptools')}); "
        "with access records and a member per call in them, as by default"
    )


def _umbel(spot: Spot) -> list[str]:
    file = spot.written("umbel.toml", configuration(spot.upstream, COUNTS))
    return [str(BIN / "umbel"), "serve", "--bind", f"127.0.0.1:{spot.port}", "--config", file]


def _seed_made_of() -> str:
    return (
        "FastAPI, one `httpx.AsyncClient`, `asyncio.gather`, orjson; a line appended through aiofiles; gunicorn with "
        f"one uvicorn worker ({packages('fastapi', 'httpx', 'aiofiles', 'gunicorn', 'uvicorn', 'uvloop', 'httptools')})"
    )


def _seed(spot: Spot) -> list[str]:
    command = [str(BIN / "gunicorn"), "--workers", "1", "--worker-class", "uvicorn_worker.UvicornWorker"]
    return [*command, "--bind", f"127.0.0.1:{spot.port}", "--pythonpath", str(PEERS), "seed:app"]


def _aiohttp_made_of() -> str:
    return (
        "FastAPI, one `aiohttp.ClientSession`, `asyncio.gather`, orjson; a line per request through a `QueueHandler` "
        f"and its thread ({packages('fastapi', 'aiohttp', 'uvicorn', 'uvloop', 'httptools', 'orjson')})"
    )


def uvicorn_command(app: str, spot: Spot, *options: str) -> list[str]:
    """The command that serves one of the peers as fast as uvicorn can."""
    command = [str(BIN / "uvicorn"), app, "--app-dir", str(PEERS)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [*command, *options, "--host", "127.0.0.1", "--port", str(spot.port)]


def _aiohttp(spot: Spot) -> list[str]:
    return uvicorn_command("fastapi_aiohttp:app", spot)


def _trio_made_of() -> str:
    return (
        "a task per client, one epoll for the upstream, msgspec; no policies, limits or checks: how much of the cost "
        f"is trio's and Python's ({packages('trio', 'msgspec')}), no peer"
    )


def _trio(spot: Spot) -> list[str]:
    return [sys.executable, str(PEERS / "plain_trio.py")]


# On Node


def node_packages(*names: str) -> str:
    """Install what the peers on Node need, once, and return the versions of Node and of these packages."""
    node, folder = tool("node"), PEERS / "node"
    stamp, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        built("fastify and undici", [tool("npm"), "ci", "--no-audit", "--no-fund"], cwd=folder)
    versions = [
        f"{name} {json.loads((folder / 'node_modules' / name / 'package.json').read_text())['version']}"
        for name in names
    ]
    return f"node {output(node, '--version')}, {', '.join(versions)}"


def _node_made_of() -> str:
    return (
        "fastify, one `undici.Pool`, `Promise.all`; pino writes its lines in batches "
        f"({node_packages('fastify', 'undici', 'pino')})"
    )


def _node(spot: Spot) -> list[str]:
    return [tool("node"), str(PEERS / "node" / "server.js")]


# In Go


def _krakend_made_of() -> str:
    go, folder = tool("go"), PEERS / "krakend"
    BUILT.mkdir(exist_ok=True)
    edition, engine = BUILT / "krakend-ce", BUILT / "lura"
    shared = f"one endpoint per n with n backends, a `group` each, GOMAXPROCS=1, {output(go, 'env', 'GOVERSION')}"
    logged = "its access log, a write per line as it comes, goes to a file"
    if not edition.exists():
        try:
            built("KrakenD CE", [go, "install", KRAKEND_MODULE], env={**os.environ, "GOBIN": str(BUILT)})
        except Absent:
            sources = [folder / name for name in ("main.go", "go.mod", "go.sum")]
            if not engine.exists() or engine.stat().st_mtime < max(path.stat().st_mtime for path in sources):
                built("Lura, the engine of KrakenD", [go, "build", "-o", str(engine), "."], cwd=folder)
            made_of = next(line for line in (folder / "go.mod").read_text().splitlines() if "luraproject" in line)
            return (
                f"KrakenD CE itself could not be had here (`go install {KRAKEND_MODULE}` failed), so this is its "
                f"engine, {made_of.removeprefix('require').strip()}, with its own proxies and gin router: {shared}; "
                f"{logged}"
            )
    return f"KrakenD CE ({KRAKEND_MODULE.partition('@')[2]}): {shared}; {logged}"


def krakend_json(spot: Spot) -> str:
    """Return the configuration of KrakenD CE, which is also that of its engine."""
    host = [f"http://127.0.0.1:{spot.upstream}"]
    endpoints = [
        {
            "endpoint": f"/n{count}",
            "backend": [{"host": host, "url_pattern": "/item/3", "group": f"c{call}"} for call in range(count)],
        }
        for count in COUNTS
    ]
    settings = {
        "$schema": "https://www.krakend.io/schema/v2.13/krakend.json",
        "version": 3,
        "listen_ip": "127.0.0.1",
        "port": spot.port,
        "timeout": "2s",
        # Room for every call in flight.
        "max_idle_connections": CLIENTS * max(COUNTS),
        "max_idle_connections_per_host": CLIENTS * max(COUNTS),
        "endpoints": endpoints,
    }
    return json.dumps(settings, indent=2)


def _krakend(spot: Spot) -> list[str]:
    file = spot.written("krakend.json", krakend_json(spot))
    edition = BUILT / "krakend-ce"
    return [str(edition), "run", "--config", file] if edition.exists() else [str(BUILT / "lura"), file]


# nginx


def nginx_conf(template: str, spot: Spot, **values: str) -> str:
    """Return one of the nginx configurations, with the settings filled in."""
    text = (PEERS / template).read_text(encoding="utf-8")
    # As root it would change to a user who may not enter the directory.
    values = {"PORT": str(spot.port), "USER": "user root;" if os.geteuid() == 0 else "", **values}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def nginx_command(file: str, spot: Spot) -> list[str]:
    return [tool("nginx"), "-p", str(spot.directory), "-e", "error.log", "-c", file]


def _nginx_made_of() -> str:
    nginx = tool("nginx")
    if not (MODULES / "ngx_http_lua_module.so").exists():
        raise Absent("nginx has no lua module here (Debian has it in libnginx-mod-http-lua)")
    return (
        "`ngx.location.capture_multi` over an upstream block with keepalive, the bodies put together undecoded; "
        f"access log with a buffer; {output(nginx, '-v').partition(': ')[2]}: the limit of the machine, no peer"
    )


def _nginx(spot: Spot) -> list[str]:
    text = nginx_conf("nginx_lua.conf", spot, UPSTREAM=str(spot.upstream), MODULES=str(MODULES))
    return nginx_command(spot.written("nginx.conf", text), spot)


UMBEL, SEED, AIOHTTP, NODE = "Umbel", "FastAPI + httpx (seed)", "FastAPI + aiohttp", "Node, fastify + undici"
KRAKEND, NGINX = "KrakenD", "nginx + lua"
GATEWAYS = (
    Gateway(UMBEL, _umbel_made_of, _umbel, "logs/access.jsonl*"),
    Gateway(AIOHTTP, _aiohttp_made_of, _aiohttp),
    Gateway(SEED, _seed_made_of, _seed),
    Gateway(NODE, _node_made_of, _node),
    Gateway(KRAKEND, _krakend_made_of, _krakend, "stdout", b"[GIN]"),
    Gateway("plain trio", _trio_made_of, _trio),
    Gateway(NGINX, _nginx_made_of, _nginx),
)
