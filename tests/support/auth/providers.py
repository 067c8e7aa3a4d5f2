"""Providers of key sets that are functions, for tests without sockets."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import trio

from tests.support.auth.tokens import ISSUER, jwk, jwks, private_key
from tests.support.logs.records import Records
from umbel.auth.jwt.discovery import at_path
from umbel.auth.jwt.key_source import FetchError, KeySource

Answer = bytes | FetchError | Exception | Callable[[], Awaitable[bytes]]
FIRST = jwks(jwk(private_key("ES256"), kid="a"))
SECOND = jwks(jwk(private_key("ES256"), kid="a"), jwk(private_key("ES256", 1), kid="b"))


async def hang() -> bytes:
    await trio.sleep_forever()
    raise AssertionError


class Provider:
    """An upstream with key sets: ``answer`` is what each fetch gives, by path or for all."""

    def __init__(self, answer: Answer | dict[str, Answer] = FIRST, origins: Collection[str] = ()) -> None:
        self.answer = answer
        self.origins = frozenset(origins)
        self.paths: list[str] = []
        self.times: list[float] = []
        self.in_flight = 0

    async def fetch(self, path: str) -> bytes:
        self.paths.append(path)
        self.times.append(trio.current_time())
        self.in_flight += 1
        try:
            await trio.lowlevel.checkpoint()
            answer = self.answer.get(path, FetchError("404")) if isinstance(self.answer, dict) else self.answer
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, bytes) else await answer()
        finally:
            self.in_flight -= 1


def source(records: Records | None = None, **options: Any) -> KeySource:
    """A source of the keys of ISSUER at /jwks.json."""
    settings: dict[str, Any] = {"refresh": 600.0, "stale_if_error": 3600.0, "cooldown": 30.0, **options}
    load = settings.pop("load", at_path("/jwks.json"))
    return KeySource(
        "users",
        ISSUER,
        "upstream id /jwks.json",
        load,
        ("ES256",),
        recorder=records or Records(),
        rng=random.Random(1),
        **settings,
    )
