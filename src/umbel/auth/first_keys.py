"""The first keys of authenticators: whether they have come, and the wait for them at startup."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import trio

from ..core.errors import UmbelError
from .jwt.authenticator import JwtAuthenticator

if TYPE_CHECKING:
    from .authenticator import Authenticator

WAIT_S_MAX = 10.0
"""The most seconds that a startup waits: two fetches. Afterwards requests are served, and get 503 where keys lack."""


class MissingKeys(NamedTuple):
    """The keys of an issuer that were never fetched, and on which readiness depends."""

    name: str
    """Issuer and section as a part of a sentence, the same in each process."""
    reason: str
    """Why, as a part of a sentence."""

    def __str__(self) -> str:
        """The state as a part of a sentence."""
        return f"the keys of {self.name} have not come yet: {self.reason}"


class MissingKeysError(UmbelError):
    """Keys have not come, without which an application must not start (the provider's failure)."""

    def __init__(self, missing: Collection[MissingKeys]) -> None:
        super().__init__("; ".join(map(str, missing)))


def have_first_keys(authenticators: Iterable[Authenticator]) -> bool:
    """Whether all key sets have been fetched once that readiness depends on. May be called from any thread."""
    return all(not isinstance(each, JwtAuthenticator) or each.is_ready for each in authenticators)


async def wait_for_first_keys(authenticators: Iterable[Authenticator], start_timeout: float) -> bool:
    """Wait until ``have_first_keys``, and return it.

    Waits at most ``WAIT_S_MAX`` seconds, and at most half of ``start_timeout``: after that the master would end the
    worker, and start the next one in vain.
    """
    late = [each for each in authenticators if isinstance(each, JwtAuthenticator) and not each.is_ready]
    with trio.move_on_after(min(WAIT_S_MAX, start_timeout / 2)):
        for each in late:
            await each.wait_for_first_keys()
    return have_first_keys(late)


def missing_keys(authenticators: Iterable[Authenticator]) -> Iterator[MissingKeys]:
    """Yield the keys that have not come, if readiness depends on them. May be called from any thread."""
    for each in authenticators:
        if not isinstance(each, JwtAuthenticator) or each.is_ready:
            continue
        for issuer in each.statistics().issuers:
            if issuer.generation == 0:
                reason = issuer.last_error or "the first fetch has not ended"
                yield MissingKeys(f"{issuer.issuer} for [auth.{each.name}]", reason)
