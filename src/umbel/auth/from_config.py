"""The authenticators of a configuration, and the tasks that keep their keys fresh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .authenticator import Authenticator

if TYPE_CHECKING:
    from ..config.schema.sections import Config
    from ..core.call import Caller
    from ..core.events import Recorder


@asynccontextmanager
async def open_authenticators(
    config: Config, callers: Mapping[str, Caller], recorder: Recorder
) -> AsyncIterator[Mapping[str, Authenticator]]:
    """Context manager: the authenticators of ``config`` by name. Within it, tasks keep their keys fresh."""
    yield {}
