"""Refusal of a configuration whose WebSocket routes cannot work where the application runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config.schema.section_tree import dotted
from ...core.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from ...config.schema.sections import Config, KeyPath


def refuse_websockets(config: Config, reason: str) -> None:
    """Check that no route passes WebSocket connections on.

    Args:
        config: the configuration.
        reason: why they could not work, and what to do.

    Raises:
        ConfigError: some routes do.
    """
    places: list[KeyPath] = [
        ("routes", index, "proxy", "websocket")
        for index, route in enumerate(config.routes)
        if route.proxy is not None and route.proxy.websocket
    ]
    if places:
        raise ConfigError([ConfigProblem(config.where(at), None, dotted(at), reason) for at in places])
