"""The proxies that ``make bench-proxy`` compares, and how each is started.

Their code and configuration are in ``benchmarks/peers``. This module measures nothing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lineup import (
    BIN,
    PEERS,
    Absent,
    Gateway,
    Spot,
    nginx_command,
    nginx_conf,
    node_packages,
    output,
    packages,
    tool,
    uvicorn_command,
)
from peers.umbel_toml import proxy_configuration
from processes import Tree, running

from .checks import failure, get

START_S = 30.0
UMBEL, NGINX, NODE, AIOHTTP = "Umbel", "nginx", "Node, @fastify/http-proxy", "FastAPI + aiohttp"
DIRECT = "no proxy"


@dataclass(frozen=True)
class ProxySpot(Spot):
    """The settings of a proxy; ``upstream`` is the port of the files, ``streams`` that of the streams."""

    streams: int

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "FILES": f"http://127.0.0.1:{self.upstream}",
            "STREAMS": f"http://127.0.0.1:{self.streams}",
        }


def _umbel_made_of() -> str:
    return (
        f"`umbel serve`, one process, three routes with `[routes.proxy]` ({packages('umbel', 'trio')}); records, "
        "limits and policies as they are by default, and nothing set but urls and paths"
    )


def _umbel(spot: Spot) -> list[str]:
    assert isinstance(spot, ProxySpot)
    file = spot.written("umbel.toml", proxy_configuration(spot.upstream, spot.streams))
    command = [str(BIN / "umbel"), "check", "--config", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line.strip() for line in done.stderr.splitlines() if "proxy" in line), done.stderr.strip())
        raise Absent(f"this version of Umbel refuses the configuration: {reason}")
    return [str(BIN / "umbel"), "serve", "--bind", f"127.0.0.1:{spot.port}", "--config", file]


def _nginx_made_of() -> str:
    nginx = tool("nginx")
    return (
        "`proxy_pass` to an upstream block with keepalive; `proxy_buffering off` and `proxy_request_buffering off` for "
        "streams and uploads, 8 buffers of 64 KiB for files; an access log with a buffer; "
        f"{output(nginx, '-v').partition(': ')[2]}"
    )


def _nginx(spot: Spot) -> list[str]:
    assert isinstance(spot, ProxySpot)
    text = nginx_conf("proxy_nginx.conf", spot, FILES=str(spot.upstream), STREAMS=str(spot.streams))
    return nginx_command(spot.written("nginx.conf", text), spot)


def _node_made_of() -> str:
    names = ("fastify", "@fastify/http-proxy", "@fastify/reply-from", "undici", "ws")
    return f"@fastify/reply-from over an `undici.Pool`; pino writes its lines in batches ({node_packages(*names)})"


def _node(spot: Spot) -> list[str]:
    return [tool("node"), str(PEERS / "node" / "proxy.js")]


def _aiohttp_made_of() -> str:
    names = ("fastapi", "starlette", "aiohttp", "uvicorn", "uvloop", "httptools", "websockets")
    return (
        "`StreamingResponse` over `iter_any()` of one `aiohttp.ClientSession`, the request's body from "
        f"`request.stream()`; a line per request through a `QueueHandler` and its thread ({packages(*names)})"
    )


def _aiohttp(spot: Spot) -> list[str]:
    return uvicorn_command("proxy_fastapi:app", spot, "--no-server-header", "--ws-per-message-deflate", "false")


PROXIES = (
    Gateway(UMBEL, _umbel_made_of, _umbel),
    Gateway(AIOHTTP, _aiohttp_made_of, _aiohttp),
    Gateway(NODE, _node_made_of, _node),
    Gateway(NGINX, _nginx_made_of, _nginx),
)


@dataclass
class Contestant:
    """A running proxy, or the upstreams themselves where there is no process."""

    name: str
    spot: ProxySpot
    tree: Tree | None
    notes: list[str] = field(default_factory=list)

    def port(self, path: str) -> int:
        """The port to send a request for this path to."""
        if self.tree is not None:
            return self.spot.port
        return self.spot.upstream if path.startswith("/files/") else self.spot.streams

    def cpu(self) -> float:
        return self.tree.cpu() if self.tree else 0.0

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def check(self) -> None:
        """Wait until it serves, and compare what comes through it; raises ``Absent`` if anything is not as it was."""
        assert self.tree is not None
        until = time.monotonic() + START_S
        while get(self.spot.port, "/files/item")[0] != 200:
            if time.monotonic() > until or not self.tree.alive():
                raise Absent(f"it did not come up: {self.tree.complaint()}")
            time.sleep(0.1)
        if reason := failure(self.spot.port):
            raise Absent(reason)


@contextmanager
def started(gateway: Gateway, spot: ProxySpot) -> Iterator[Contestant]:
    """Run the proxy on the first core until the block ends; raises ``Absent`` if it cannot be compared."""
    spot.directory.mkdir()
    with running(gateway.command(spot), 0, spot.directory, spot.environment()) as tree:
        contestant = Contestant(gateway.name, spot, tree)
        contestant.check()
        yield contestant
