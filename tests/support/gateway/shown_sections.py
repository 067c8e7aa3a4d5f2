"""A section of a document that shows a configuration, requests and their responses: it is served and asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.support.gateway.shown_exchanges import ask, check_reply, exchanges, split_message
from tests.support.server.serving import serving
from tests.support.upstream.raw_server import Peer, raw_server, response
from umbel import Umbel

UPSTREAM = "http://127.0.0.1:9001"
"""The address of the upstream in the documents."""


async def answer(answers: Mapping[str, bytes], peer: Peer) -> None:
    """Answer each request with its raw response of ``answers``, else with its method, target and Host as JSON."""
    while (request := await peer.read_request())[0]:
        line, fields, _ = split_message(request[0].decode("latin-1").replace("\r\n", "\n"))
        method, target, _ = line.split(" ")
        said = {"method": method, "target": target, "host": dict(fields)["host"]}
        echo = response(json.dumps(said).encode(), b"Content-Type: application/json")
        await peer.send(answers.get(target, echo))


def configuration_of(section: str) -> str:
    """The one configuration of a section."""
    (config,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    return str(config)


async def check_section(section: str, answers: Mapping[str, bytes], folder: Path) -> None:
    """Serve the configuration of a section, and assert that each request gets the response that is shown.

    Args:
        section: the text of the section in Markdown.
        answers: raw responses of the upstream to targets.
        folder: an empty folder, for the configuration and the secret files that it names.
    """
    config, asked = configuration_of(section), exchanges(section)
    assert asked
    async with raw_server(partial(answer, answers)) as server:
        for file in re.findall(r"\$\{file:([^}]*)\}", config):
            (folder / file).write_text("secret\n")
        (folder / "umbel.toml").write_text(config.replace(UPSTREAM, f"http://127.0.0.1:{int(server)}"))
        async with serving(Umbel.from_file(folder / "umbel.toml")) as port:
            for exchange in asked:
                reply = await ask(port, exchange)
                check_reply(exchange, reply, {UPSTREAM.removeprefix("http://"): f"127.0.0.1:{int(server)}"})
