"""The first keys of authenticators: whether they have come, and the wait for them at startup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from .jwt.authenticator import JwtAuthenticator

if TYPE_CHECKING:
    from .authenticator import Authenticator

WAIT_S_MAX = 10.0
"""The most seconds that a startup waits: two fetches. Afterwards requests are served, and get 503 where keys lack."""


def have_first_keys(authenticators: Iterable[Authenticator]) -> bool:
    """Whether all key sets have been fetched once that readiness depends on. May be called from any thread."""
    return all(not isinstance(each, JwtAuthenticator) or each.is_ready for each in authenticators)


async def wait_for_first_keys(authenticators: Iterable[Authenticator]) -> bool:
    """Wait until ``have_first_keys``, at most ``WAIT_S_MAX`` seconds; return it."""
    late = [each for each in authenticators if isinstance(each, JwtAuthenticator) and not each.is_ready]
    with trio.move_on_after(WAIT_S_MAX):
        for each in late:
            await each.wait_for_first_keys()
    return have_first_keys(late)
