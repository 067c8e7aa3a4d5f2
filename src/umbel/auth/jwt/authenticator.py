"""Authenticator of a section ``[auth.NAME]`` of the kind jwt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping

import trio

from ...config.schema.access.auth import Issuer, JwtAuth
from ...config.schema.sections import KeyPath
from ...core.events import NULL, Recorder
from ...core.identity import Identity
from ..authenticator import Place, Presented, Refusal
from ..config_error import AuthConfigError
from ..extra import HOW_TO_INSTALL, TOKENS, is_installed
from .discovery import Load, at_path, discovered, path_of_issuer
from .file_keys import FileKeys, read_file
from .key_set import BadKeySetError
from .key_source import KeySource, KeyUpstream
from .key_statistics import JwtStatistics
from .token_places import find_token, place_of
from .verifier import IssuerRules, Verifier

_NOT_INSTALLED = f"tokens need a library that is not installed; install it with: {HOW_TO_INSTALL}"
_BAD_ISSUER = "discovery needs an iss that is an http or https URL without query and fragment; write jwks with path"


def problems(section: JwtAuth) -> Iterator[tuple[KeyPath, str]]:
    """Yield the mistakes of a section that only the machine shows: path of the key, and one sentence.

    They are: a library that is not installed, a file that cannot be read or has no usable key, and each key in a file
    that is left out. Blocks on the files. Needs no event loop.
    """
    if not is_installed(TOKENS):
        yield ("kind",), _NOT_INSTALLED
        return
    for place, issuer in enumerate(section.issuers):
        if issuer.keys is not None:
            try:
                left_out = read_file(issuer.keys, section.algorithms).left_out
            except BadKeySetError as error:
                yield ("issuers", place, "keys"), f"the file {error}"
            else:
                for reason in left_out:
                    yield ("issuers", place, "keys"), f"the file has a key that cannot be used: {reason}"
        elif issuer.jwks is not None and issuer.jwks.discovery and path_of_issuer(issuer.iss) is None:
            yield ("issuers", place, "iss"), _BAD_ISSUER


class JwtAuthenticator:
    """Authenticator of tokens; see ``auth.authenticator.Authenticator``.

    ``run`` must run in a nursery as long as it is used, if a key set is fetched from an upstream.

    Args:
        name: the name of the section.
        section: the section.
        recorder: gets the records of the keys.
        wall: the time in seconds since 1970, for the times in tokens.
        clock: the time of a monotonic clock in seconds; by default trio's, which needs a running event loop.
        rng: the source of jitter.

    Raises:
        AuthConfigError: a file of keys cannot be used, or the library is not installed. Blocks on the files.
    """

    kind = "jwt"

    def __init__(
        self,
        name: str,
        section: JwtAuth,
        *,
        recorder: Recorder = NULL,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = trio.current_time,
        rng: random.Random | None = None,
    ) -> None:
        if not is_installed(TOKENS):
            raise AuthConfigError(("kind",), _NOT_INSTALLED)
        self.name = name
        self._places = tuple(map(place_of, section.from_))
        self._ready_without_keys = section.ready_without_keys
        self._files: list[FileKeys] = []
        self._sources: dict[str, KeySource] = {}
        """The key sets that are fetched, by issuer."""
        self._upstreams: dict[str, str] = {}
        """The upstream of each of them, by issuer."""
        issuers: dict[str, IssuerRules] = {}
        for place, issuer in enumerate(section.issuers):
            keys = self._keys_of(section, place, issuer, recorder, clock, rng)
            issuers[issuer.iss] = IssuerRules(keys, frozenset(issuer.audience))
        self._verifier = Verifier(
            name,
            issuers,
            algorithms=frozenset(section.algorithms),
            types=frozenset(section.typ),
            required=section.required,
            leeway=section.leeway,
            cache_max=section.cache,
            wall=wall,
            clock=clock,
        )

    def _keys_of(
        self,
        section: JwtAuth,
        place: int,
        issuer: Issuer,
        recorder: Recorder,
        clock: Callable[[], float],
        rng: random.Random | None,
    ) -> FileKeys | KeySource:
        """Make the source of an issuer's keys, and read its file."""
        if issuer.jwks is None:
            assert issuer.keys is not None
            try:
                file = FileKeys(issuer.iss, issuer.keys, read_file(issuer.keys, section.algorithms))
            except BadKeySetError as error:
                raise AuthConfigError(("issuers", place, "keys"), f"the file {error}") from None
            self._files.append(file)
            return file
        load, shown = _location(issuer, place)
        source = KeySource(
            self.name,
            issuer.iss,
            f"upstream {issuer.jwks.upstream} {shown}",
            load,
            section.algorithms,
            refresh=section.refresh,
            stale_if_error=section.stale_if_error,
            cooldown=section.unknown_kid_cooldown,
            recorder=recorder,
            rng=rng,
            clock=clock,
        )
        self._sources[issuer.iss] = source
        self._upstreams[issuer.iss] = issuer.jwks.upstream
        return source

    def authenticate(self, presented: Presented) -> Identity | Refusal | None:
        """Verify the token of a request. Never waits, and never raises."""
        found = find_token(presented, self._places)
        if found is None:
            return None
        return found.token if isinstance(found.token, Refusal) else self._verifier.verify(found.token)

    async def renew_keys(self, presented: Presented) -> bool:
        """Fetch the keys of the token's issuer once, together with all others who wait for them.

        Returns whether keys were fetched. Waits at most for the time limit of one fetch. Within
        ``unknown_kid_cooldown`` of the last fetch, and while ``run`` does not run, it returns False at once.
        """
        found = find_token(presented, self._places)
        if found is None or isinstance(found.token, Refusal):
            return False
        issuer = self._verifier.issuer_of(found.token)
        source = self._sources.get(issuer) if issuer is not None else None
        return source is not None and await source.renew()

    def used(self, presented: Presented) -> Place | None:
        """The place of the token that ``authenticate`` looks at; None: the request presents none."""
        found = find_token(presented, self._places)
        return None if found is None else found.place

    def challenge(self, refusal: Refusal | None) -> str:
        """The challenge for WWW-Authenticate (RFC 6750 section 3); ``refusal`` None: no token was given."""
        realm = f'Bearer realm="{_quotable(self.name)}"'
        if refusal is None:
            return realm
        scope = f', scope="{_quotable(refusal.scope)}"' if refusal.scope else ""
        return f'{realm}, error="{refusal.error}", error_description="{_quotable(refusal.reason)}"{scope}'

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place in which a token may be."""
        return self._places

    @property
    def upstreams(self) -> frozenset[str]:
        """The names of the upstreams that ``run`` needs."""
        return frozenset(self._upstreams.values())

    async def run(self, upstreams: Mapping[str, KeyUpstream]) -> None:
        """Keep the key sets fresh until this is cancelled; without any it returns at once. Raises nothing else.

        Args:
            upstreams: by name, at least those of ``upstreams``.
        """
        async with trio.open_nursery() as nursery:
            for issuer, source in self._sources.items():
                nursery.start_soon(source.run, upstreams[self._upstreams[issuer]])

    @property
    def is_ready(self) -> bool:
        """Whether requests may come: each key set was fetched once, or the configuration says not to wait for it."""
        return self._ready_without_keys or all(source.has_keys for source in self._sources.values())

    async def wait_for_first_keys(self) -> None:
        """Wait until each key set has been fetched once."""
        for source in self._sources.values():
            await source.wait_for_first_keys()

    def statistics(self) -> JwtStatistics:
        """A snapshot."""
        verifier = self._verifier
        issuers: list[FileKeys | KeySource] = [*self._files, *self._sources.values()]
        return JwtStatistics(
            self.name,
            len(verifier.cache),
            verifier.cache.bytes,
            verifier.hits,
            verifier.misses,
            tuple(each.statistics() for each in issuers),
        )


def _location(issuer: Issuer, place: int) -> tuple[Load, str]:
    """The function that fetches an issuer's key set, and its path for people."""
    assert issuer.jwks is not None
    if issuer.jwks.path is not None:
        return at_path(issuer.jwks.path), issuer.jwks.path
    try:
        return discovered(issuer.iss), "(discovery)"
    except ValueError:
        raise AuthConfigError(("issuers", place, "iss"), _BAD_ISSUER) from None


def _quotable(text: str) -> str:
    """A text within a quoted-string (RFC 9110 section 5.6.4), without characters that need a backslash."""
    return "".join(char for char in text if " " <= char <= "~" and char not in '"\\')
