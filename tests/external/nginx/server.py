"""An nginx process for tests, which listens on a socket that the test has bound."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from tools.external import program

from tests.support.process.processes import started

CONFIG = """\
daemon off;
worker_processes 1;
@USER@
pid nginx.pid;
error_log error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  @HTTP@
  server {
    listen 127.0.0.1:@PORT@;
    @SERVER@
  }
}
"""


@asynccontextmanager
async def nginx(directory: Path, *, http: str = "", server: str = "") -> AsyncIterator[int]:
    """Run nginx within the block, with further directives in ``http`` and ``server``; yield its port."""
    await trio.Path(directory).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # As root nginx would change to a user who may not enter the directory.
        values = {"PORT": str(port), "HTTP": http, "SERVER": server, "USER": "user root;" if os.geteuid() == 0 else ""}
        text = CONFIG
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        await trio.Path(directory / "nginx.conf").write_text(text)
        command = [program("nginx") or "nginx", "-p", str(directory), "-e", "error.log", "-c", "nginx.conf"]
        # nginx inherits the listening sockets that the variable NGINX names, as from an older nginx that it replaces.
        # So the port cannot be taken by another process, and connections wait in the queue until nginx accepts them.
        listening = listener.fileno()
        async with started(*command, cwd=directory, env={"NGINX": f"{listening};"}, pass_fds=[listening]) as child:
            yield port
            await child.stop(signal.SIGTERM)
    assert "[emerg]" not in await trio.Path(directory / "error.log").read_text()
