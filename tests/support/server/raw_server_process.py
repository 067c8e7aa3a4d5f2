"""A server process for raw requests: its routes answer without a call, and its upstream must never be called."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.process.launched_workers import Launched, launched
from tests.support.server.raw_requests import MAX_BODY

_NOTHING = 'none = { upstream = "up", path = "/", when = "`false`" }'
"""A call that is always skipped, so that the route answers without its upstream."""

CONFIG = f"""
[logs]
access.probes = true
flush_every = "5ms"
[server]
max_body = "BODYB"
[upstreams.up]
urls = ["http://127.0.0.1:PORT"]
[[routes]]
path = "/r"
calls.{_NOTHING}
[[routes]]
path = "/echo"
methods = ["POST"]
max_body = "BODYB"
answer.shape = "{{got: body}}"
calls.{_NOTHING}
[[routes]]
path = "/up/<x>"
calls.one = {{ upstream = "up", path = "/{{x}}" }}
"""


class Served:
    """A launched server, and the listening socket of its upstream, to which no connection may be made."""

    def __init__(self, server: Launched, upstream: socket.socket) -> None:
        self.server = server
        self._upstream = upstream

    def upstream_was_called(self) -> bool:
        try:
            self._upstream.accept()
        except BlockingIOError:
            return False
        return True


@contextmanager
def serving_raw(
    launcher: str,
    directory: Path,
    server_keys: str = "",
    *,
    settings: str = "",
    hosts: Sequence[str] = ("gateway.test",),
    max_body: int = MAX_BODY,
    sections: str = "",
) -> Iterator[Served]:
    """Launch a server of ``CONFIG`` until the block ends.

    Args:
        launcher: one of ``launched_workers.LAUNCHERS``.
        server_keys: further keys of the section ``[server]``.
        settings: further settings of Hypercorn.
        hosts: the key ``hosts`` of the section ``[server]``.
        max_body: the key ``max_body``, in bytes.
        sections: further sections of the configuration.
    """
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.setblocking(False)
        keys = f"[server]\nhosts = {json.dumps(hosts)}\n{server_keys}"
        config = (
            (CONFIG + sections)
            .replace("PORT", str(upstream.getsockname()[1]))
            .replace("[server]", keys)
            .replace("BODY", str(max_body))
        )
        with launched(launcher, directory, config, settings=settings) as server:
            yield Served(server, upstream)
