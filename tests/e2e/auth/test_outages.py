"""A provider that changes its keys, fails, lies, hangs and comes back, with the gateway before it, over sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio

from tests.support.auth.oidc_provider import Provider, Trouble, provided
from tests.support.logs.records import Records
from tests.support.server.serving import Reply, fetch, serving
from umbel import Umbel
from umbel.config.schema.sections import Config
from umbel.core.events import LogMessage

TROUBLES: tuple[Trouble, ...] = ("hang", "500", "html", "issuer")


class Gateway(NamedTuple):
    """A gateway whose route ``/`` accepts the tokens of a provider."""

    port: int
    provider: Provider
    records: Records

    async def ask(self, token: str) -> Reply:
        return await fetch(self.port, "GET", "/", [("authorization", f"Bearer {token}")])

    @property
    def events(self) -> list[str]:
        """The events about keys, in their order."""
        messages = [each for each in self.records.events if isinstance(each, LogMessage)]
        return [each.event for each in messages if each.event.startswith("auth.keys")]


@asynccontextmanager
async def gateway(provider: Provider, *, cooldown: str = "0.01ms", timeout: str = "200ms") -> AsyncIterator[Gateway]:
    async with provided(provider):
        issuer = {"iss": provider.issuer, "audience": ["shop"], "jwks": {"upstream": "id", "discovery": True}}
        section = {"kind": "jwt", "algorithms": ["ES256"], "issuers": [issuer], "unknown_kid_cooldown": cooldown}
        config = {
            "upstreams": {"id": {"urls": [provider.issuer], "timeout": timeout}},
            "auth": {"users": section},
            "routes": [{"path": "/", "auth": "users", "answer": {"shape": "auth.sub"}}],
        }
        records = Records()
        async with serving(Umbel(__name__, Config.model_validate(config), recorder=records)) as port:
            yield Gateway(port, provider, records)


def a_provider() -> Provider:
    return Provider(users={"ada": {}})


async def test_a_token_of_a_new_key_is_accepted_at_once_and_one_of_a_removed_key_no_more() -> None:
    async with gateway(a_provider()) as served:
        old = served.provider.token("ada")
        assert (await served.ask(old)).json == "ada"
        served.provider.rotate()
        assert (await served.ask(served.provider.token("ada"))).status == 200
        assert (await served.ask(old)).status == 200
        served.provider.rotate(keep=0)
        assert (await served.ask(served.provider.token("ada"))).status == 200
        refused = await served.ask(old)
        assert (refused.status, refused.json["type"]) == (401, "urn:umbel:problem:unauthorized")
        assert served.events == ["auth.keys_changed"] * 3


async def test_tokens_with_invented_keys_cause_one_fetch_per_cool_down() -> None:
    async with gateway(a_provider(), cooldown="1h") as served:
        forger = a_provider()
        forger.port = served.provider.port
        for _ in range(20):
            forger.rotate()
            assert (await served.ask(forger.token("ada"))).status == 401
        assert served.provider.asked.count("/jwks.json") == 1


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_last_keys_stay_in_force_while_the_provider_is_in_trouble(trouble: Trouble) -> None:
    async with gateway(a_provider()) as served:
        old = served.provider.token("ada")
        served.provider.trouble = trouble
        served.provider.rotate()
        new = served.provider.token("ada")
        with trio.fail_after(5):
            refused = await served.ask(new)
        assert (refused.status, refused.json["type"]) == (401, "urn:umbel:problem:unauthorized")
        assert (await served.ask(old)).status == 200
        served.provider.trouble = ""
        with trio.fail_after(30):
            # A request may share a fetch, one of those after failures, that has met the trouble.
            while (await served.ask(new)).status != 200:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert served.events == ["auth.keys_changed", "auth.keys_failed", "auth.keys_changed"]


async def test_a_worker_accepts_connections_once_a_provider_that_was_down_has_given_keys() -> None:
    provider = a_provider()
    provider.trouble = "500"

    async def mend() -> None:
        await provider.failed.wait()
        provider.trouble = ""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mend)
        async with gateway(provider) as served:
            assert served.events == ["auth.keys_failed", "auth.keys_changed"]
            assert (await served.ask(provider.token("ada"))).status == 200
            assert (await fetch(served.port, "GET", "/readyz")).status == 200
