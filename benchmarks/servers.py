"""One of the servers that ``server.py`` compares: ``servers.py NAME`` prints its port and serves until it is killed.

Those over TLS take a file of key and certificates as second argument. All serve the same bare ASGI application, without
an access log, from one process. The two frameworks respond with the same text as JSON, from a function that makes no
call.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

BODY = b"Hello, world!"
HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(BODY))]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
REST = {"type": "http.response.body", "body": BODY}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """The bare ASGI application."""
    if scope["type"] == "http":
        await send(START)
        await send(REST)
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def listening() -> socket.socket:
    """Return a bound socket, and print its port for the parent process."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(sock.getsockname()[1], flush=True)
    return sock


def umbel(pem: str | None = None) -> None:
    import trio
    from hypercorn.config import Config

    from umbel.server import serve

    config = Config()
    config.bind = [f"fd://{listening().detach()}"]
    config.keep_alive_max_requests = sys.maxsize
    config.include_server_header = False
    config.certfile = config.keyfile = pem
    trio.run(serve, hello, config)


def uvicorn(**options: Any) -> None:
    import uvicorn as module

    config = module.Config(
        hello, lifespan="on", access_log=False, log_level="error", server_header=False, timeout_keep_alive=60, **options
    )
    module.Server(config).run(sockets=[listening()])


def hypercorn() -> None:
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = [f"fd://{listening().detach()}"]
    config.keep_alive_max_requests = sys.maxsize
    config.include_server_header = False
    config.errorlog = None
    trio.run(serve, hello, config)


def respond(pem: str | None = None) -> None:
    import trio

    from umbel import Umbel
    from umbel.config.schema.sections import Config
    from umbel.server import hypercorn_config, serve
    from umbel.server.process import gc_tuning

    gc_tuning.apply()  # As ``umbel serve`` does.
    route = {"path": "/hello", "respond": {"text": BODY.decode()}}
    config = {"logs": {"access": {"level": "error"}}, "routes": [route]}
    app = Umbel(__name__, Config.model_validate(config), static_folder=None)
    served = hypercorn_config(bind=[f"fd://{listening().detach()}"])
    served.keep_alive_max_requests = sys.maxsize
    served.certfile = served.keyfile = pem
    trio.run(serve, app, served)


def compose() -> None:
    import trio

    from umbel import Umbel
    from umbel.config.schema.sections import Config
    from umbel.server import hypercorn_config, serve

    app = Umbel(__name__, Config.model_validate({"logs": {"access": {"level": "error"}}}), static_folder=None)

    @app.compose("/hello")
    async def answer(_: Any) -> str:
        return BODY.decode()

    config = hypercorn_config(bind=[f"fd://{listening().detach()}"])
    config.keep_alive_max_requests = sys.maxsize
    trio.run(serve, app, config)


def fastapi() -> None:
    import fastapi as module
    import uvicorn as server

    app = module.FastAPI()

    @app.get("/hello")
    async def answer() -> str:
        return BODY.decode()

    config = server.Config(
        app, access_log=False, log_level="error", http="httptools", loop="uvloop", timeout_keep_alive=60
    )
    server.Server(config).run(sockets=[listening()])


FRAMEWORKS: dict[str, Callable[[], None]] = {
    "umbel, @app.compose": compose,
    "FastAPI, uvicorn": fastapi,
    "umbel, respond": respond,
}
"""Functions of a framework that answer with a value and call nobody, and a route with the same response."""
SERVERS: dict[str, Callable[[], None]] = {
    "umbel.server": umbel,
    "uvicorn, httptools, uvloop": lambda: uvicorn(http="httptools", loop="uvloop"),
    "uvicorn, h11, asyncio": lambda: uvicorn(http="h11", loop="asyncio"),
    "hypercorn, trio": hypercorn,
}
SECURE: dict[str, Callable[[str], None]] = {
    "umbel.server, TLS": umbel,
    "uvicorn, httptools, uvloop, TLS": lambda pem: uvicorn(
        http="httptools", loop="uvloop", ssl_certfile=pem, ssl_keyfile=pem
    ),
    "umbel, respond, TLS": respond,
}
"""Over TLS, HTTP/1.1 for a client without ALPN."""

if __name__ == "__main__":
    name, *pem = sys.argv[1:]
    if pem:
        SECURE[name](*pem)
    else:
        (SERVERS | FRAMEWORKS)[name]()
