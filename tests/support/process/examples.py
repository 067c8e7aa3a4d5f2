"""The examples of the folder ``examples``, run with the commands that their README.md shows."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.process.processes import PROJECT, PYTHON, Child, started

EXAMPLES = PROJECT / "examples"
_SHOWN_SERVICES, _SHOWN_GATEWAY = "127.0.0.1:9001", "127.0.0.1:8000"
"""The addresses in each README.md; the tests take free ports instead."""


class Example(NamedTuple):
    """An example that runs."""

    gateway: Child
    url: str
    """The base URL of the gateway."""
    services: str
    """The base URL of the services."""
    shown: str
    """The path of the request that README.md shows."""
    logs: Path

    @property
    def port(self) -> int:
        """The port of the gateway."""
        return int(self.url.rpartition(":")[2])


def shown_commands(name: str) -> list[list[str]]:
    """The three commands under "Run it": the services, the gateway, and curl."""
    text = (EXAMPLES / name / "README.md").read_text()
    block = re.search(r"## Run it\n.*?```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    folder, *commands = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert folder == ["cd", f"examples/{name}"]
    assert [command[0] for command in commands] == ["hypercorn", "umbel", "curl"]
    return commands


@asynccontextmanager
async def running_example(
    name: str, scratch: Path, *, gateway_environ: Mapping[str, str] | None = None, **moods: str
) -> AsyncGenerator[Example, None]:
    """Run the services and the gateway of an example within the block, both by the commands of its README.md.

    Args:
        name: the folder of the example.
        scratch: a folder for the logs of the gateway.
        gateway_environ: environment variables of the gateway, in place of those that name the services.
        moods: environment variables of the services, such as ``SLOW``.
    """
    serve_services, serve_gateway, ask = shown_commands(name)
    assert _SHOWN_SERVICES in serve_services
    serve_services = [word.replace(_SHOWN_SERVICES, "127.0.0.1:0") for word in serve_services]
    folder, logs = EXAMPLES / name, scratch / "logs"
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = {"PORT": str(listener.getsockname()[1])}
        # Without --workers 0 Hypercorn serves in a child process, which would outlive it when it is killed.
        serve = (PYTHON, "-m", *serve_services, "--workers", "0")
        services = await stack.enter_async_context(started(*serve, cwd=folder, env={**port, **moods}))
        services_url = await services.address()
        variables = re.findall(rf"\$\{{(\w+):-http://{_SHOWN_SERVICES}\}}", (folder / "umbel.toml").read_text())
        environ = {**port, **dict.fromkeys(variables, services_url), "LOGS_DIR": str(logs), **(gateway_environ or {})}
        descriptor = listener.fileno()
        serve = (PYTHON, "-m", *serve_gateway, "-b", f"fd://{descriptor}")
        started_gateway = started(*serve, cwd=folder, env=environ, pass_fds=[descriptor])
        gateway = await stack.enter_async_context(started_gateway)
        url = await gateway.address("Umbel runs on")
        yield Example(gateway, url, services_url, ask[-1].removeprefix(f"http://{_SHOWN_GATEWAY}"), logs)
