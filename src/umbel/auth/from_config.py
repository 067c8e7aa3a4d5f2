"""The authenticators of a configuration, and the tasks that keep their keys fresh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import trio

from ..config.loading.file_rules import needs_key_files
from ..config.schema.access.auth import ApiKeyAuth, JwtAuth
from ..core.errors import ConfigError, ConfigProblem
from .certificates.client_certificates import MtlsAuthenticator
from .config_error import AuthConfigError
from .jwt.authenticator import JwtAuthenticator
from .jwt.upstream_keys import UpstreamKeys
from .keys.api_keys import ApiKeyAuthenticator

if TYPE_CHECKING:
    from ..config.schema.access.auth import Auth
    from ..config.schema.sections import Config
    from ..core.call import Caller
    from ..core.events import Recorder

AnyAuthenticator: TypeAlias = JwtAuthenticator | ApiKeyAuthenticator | MtlsAuthenticator


@asynccontextmanager
async def open_authenticators(
    config: Config, callers: Mapping[str, Caller], recorder: Recorder
) -> AsyncIterator[Mapping[str, AnyAuthenticator]]:
    """Context manager: the authenticators of ``config`` by name. Within it, tasks keep their keys fresh.

    Args:
        config: the configuration.
        callers: the callers by name of the upstream, by which keys are fetched.
        recorder: gets the records of the keys.

    Raises:
        ConfigError: a file of keys cannot be used (of API keys only if ``needs_key_files``), or a library is not
            installed.
    """
    made = {name: _made(config, name, section, recorder) for name, section in config.auth.items()}
    async with trio.open_nursery() as nursery:
        for authenticator in made.values():
            if isinstance(authenticator, JwtAuthenticator):
                upstreams = {
                    name: UpstreamKeys(name, config.upstreams[name], callers[name], recorder)
                    for name in authenticator.upstreams
                }
                nursery.start_soon(authenticator.run, upstreams)
            elif isinstance(authenticator, ApiKeyAuthenticator):
                nursery.start_soon(authenticator.run)
        yield made
        nursery.cancel_scope.cancel(reason="closed")


def _made(config: Config, name: str, section: Auth, recorder: Recorder) -> AnyAuthenticator:
    """Make the authenticator of a section.

    Raises:
        ConfigError: as ``open_authenticators``.
    """
    try:
        if isinstance(section, JwtAuth):
            return JwtAuthenticator(name, section, recorder=recorder)
        if isinstance(section, ApiKeyAuth):
            return ApiKeyAuthenticator(name, section, recorder=recorder, required=needs_key_files())
        return MtlsAuthenticator(name, section)
    except AuthConfigError as error:
        at = ("auth", name, *error.key)
        raise ConfigError([ConfigProblem(config.where(at), None, ".".join(map(str, at)), error.reason)]) from error
