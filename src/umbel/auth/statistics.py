"""Snapshots of authenticators for operators: the same form for every kind. They hold no key and no credential."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .jwt.authenticator import JwtAuthenticator
from .jwt.key_statistics import KeyState
from .jwt.key_statistics import KeyStatistics as IssuerKeys
from .keys.api_keys import ApiKeyAuthenticator
from .keys.api_keys import KeyStatistics as ApiKeyStatistics

if TYPE_CHECKING:
    from ..core.diagnostics.redact import Redactor
    from .authenticator import Authenticator

_WORST_FIRST: tuple[KeyState, ...] = ("none", "failing", "ok")


@dataclass(frozen=True, slots=True)
class KeySourceStatistics:
    """A snapshot of the keys from one file or key set."""

    issuer: str
    """The issuer of tokens that the keys verify; empty for API keys."""
    source: str
    """Where the keys are from: a file, or an upstream with a path."""
    state: KeyState
    """ok; failing: the latest fetch or reading failed, and the last keys are in use; none: there are no keys."""
    keys: int
    """Keys in use, expired API keys included."""
    left_out: tuple[str, ...]
    """Why other keys of the source are not used, one sentence for each."""
    age: float | None
    """Seconds since the keys were fetched or read; None: they were not yet, or they were read at the start only."""
    fetches: int
    """Fetches of a key set that have ended; 0 for a file."""
    failures: int
    """Those of them that failed."""
    last_error: str
    """Why the latest fetch or reading failed, without secrets; empty: it did not."""


@dataclass(frozen=True, slots=True)
class AuthenticatorStatistics:
    """A snapshot of the authenticator of one section ``[auth.NAME]``."""

    name: str
    kind: str
    state: KeyState
    """The worst state of its sources of keys; ok without one."""
    sources: tuple[KeySourceStatistics, ...] = ()
    cached_tokens: int = 0
    """Verified tokens that are remembered."""


def authenticator_statistics(
    authenticators: Iterable[Authenticator], redactor: Redactor
) -> tuple[AuthenticatorStatistics, ...]:
    """Return a snapshot of each authenticator. Must be called in the trio thread."""
    return tuple(_of(each, redactor) for each in authenticators)


def _of(authenticator: Authenticator, redactor: Redactor) -> AuthenticatorStatistics:
    sources: tuple[KeySourceStatistics, ...] = ()
    cached = 0
    if isinstance(authenticator, JwtAuthenticator):
        tokens = authenticator.statistics()
        cached = tokens.cached
        sources = tuple(_issuer(each, redactor) for each in tokens.issuers)
    elif isinstance(authenticator, ApiKeyAuthenticator):
        sources = (_key_file(authenticator.statistics(), redactor),)
    state: KeyState = min((each.state for each in sources), key=_WORST_FIRST.index, default="ok")
    return AuthenticatorStatistics(authenticator.name, authenticator.kind, state, sources, cached)


def _issuer(keys: IssuerKeys, redactor: Redactor) -> KeySourceStatistics:
    return KeySourceStatistics(
        redactor.text(keys.issuer),
        redactor.text(keys.source),
        keys.state,
        keys.keys,
        tuple(map(redactor.text, keys.left_out)),
        keys.age,
        keys.fetches,
        keys.failures,
        redactor.text(keys.last_error),
    )


def _key_file(keys: ApiKeyStatistics, redactor: Redactor) -> KeySourceStatistics:
    error = redactor.text(keys.last_error or "")
    state: KeyState = "none" if keys.generation == 0 else "failing" if error else "ok"
    return KeySourceStatistics("", keys.file, state, keys.keys, (), keys.read_age, 0, 0, error)
