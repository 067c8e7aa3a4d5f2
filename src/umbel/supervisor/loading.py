"""From ``module:app`` or a configuration file to an application, its settings and its limits.

Called by ``worker.py``, and by ``umbel serve`` where there is no master. The master never does: what an application's
import brings along stays out of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypercorn.config import Config as HypercornConfig

from ..config.both import both
from ..config.load import load
from ..config.schema import Config
from ..errors import UmbelError
from ..server import hypercorn_config
from ..server.limits import Limits
from ..server.settings import Warn
from .options import Application


class AppImportError(UmbelError):
    """The operator's mistake: there is no such application. ``str(error)`` says what was looked for."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is served, and how."""

    app: Any
    settings: HypercornConfig
    limits: Limits | None
    """The configuration's, for an application that carries none of its own."""
    config: Config | None


def load_application(application: Application, *, bind: Sequence[str] = (), warn: Warn | None = None) -> Loaded:
    """Import or build the application.

    Raises:
        ConfigError: the configuration or the server's settings cannot be used.
        AppImportError: the module has no such application.
        BaseException: whatever the import of the module raises.
    """
    (app, config), settings = both(
        partial(_application, application), partial(hypercorn_config, application.hypercorn, bind=bind, warn=warn)
    )
    carries_limits = isinstance(getattr(app, "limits", None), Limits)
    limits = None if carries_limits or config is None else Limits.of(config.server)
    for name, value in application.settings.items():
        setattr(settings, name, value)
    return Loaded(app, settings, limits, config)


def _application(application: Application) -> tuple[Any, Config | None]:
    if application.app is None:
        from ..gateway.app import Umbel

        gateway = Umbel.from_file(application.config or "umbel.toml")
        return gateway, gateway.gateway_config
    config = None if application.config is None else load(application.config)
    return import_app(application.app), config


def import_app(spec: str) -> Any:
    """The application that ``module:app`` names.

    ``module`` alone stands for ``module:app``, and in ``module:make()`` the function is called. The working directory
    is looked at first, as by ``python -m``.

    Raises:
        AppImportError: the module is there, but it has no such name, or that is no application.
        BaseException: whatever the import raises.
    """
    module_name, _, path = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = importlib.import_module(module_name)
    path = path or "app"
    for name in path.removesuffix("()").split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise AppImportError(f'"{spec}": the module {module_name} has no {name}') from error
    if path.endswith("()"):
        found = found()
    if not callable(found):
        raise AppImportError(f'"{spec}" is no ASGI application: it cannot be called')
    return found
