"""Loading of the application that ``module:app`` names or a configuration file describes.

The master never loads an application, so that nothing that an application imports is in its memory. The gateway is
imported only where it is the application.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ...config.loading.empty_config import require_routes
from ...core.errors import ConfigError, UmbelError


class AppImportError(UmbelError):
    """An application that does not exist. ``str(error)`` says what was looked for, and where."""


def load_app(spec: str | None, config: str | None, routes: int = 0) -> Any:
    """Load the application that ``spec`` names; without ``spec``, the gateway of the configuration file.

    Args:
        spec: ``module:app``, as for ``import_app``.
        config: the path of the configuration file; None means umbel.toml.
        routes: the number of routes that the file had when it was accepted. It may have been truncated since.

    Raises:
        ConfigError: the configuration cannot be used, or has lost most of its routes.
        AppImportError: the module has no such application.
        BaseException: whatever the import of the module raises.
    """
    if spec is not None:
        return import_app(spec)
    from ...gateway.app import Umbel

    app = Umbel.from_file(config or "umbel.toml")
    require_routes(config or "umbel.toml", len(app.gateway_config.routes), routes, need_some=routes > 0)
    return app


def config_error_of(app: Any) -> ConfigError | None:
    """Return the configuration error that kept an application from starting; None if something else did."""
    error = getattr(app, "config_error", None)
    return error if isinstance(error, ConfigError) else None


def import_app(spec: str) -> Any:
    """Import the application that ``module:app`` names.

    ``module`` alone stands for ``module:app``, and in ``module:make()`` the function is called. The working directory
    is searched first, as by ``python -m``.

    Raises:
        AppImportError: there is no such module, it has no such name, or that is no application.
        BaseException: whatever the import raises.
    """
    module_name, _, path = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        if not _is_missing(module_name, error):
            raise
        reason = f'"{spec}": there is no module "{module_name}" in {here} or among what is installed'
        raise AppImportError(f"{reason}; write MODULE:APP, such as shop.main:app") from error
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


def _is_missing(module_name: str, error: Exception) -> bool:
    """Whether the module itself does not exist, or its name is invalid; False for a module that it imports."""
    if isinstance(error, ModuleNotFoundError):
        return error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
    return not all(part.isidentifier() for part in module_name.split("."))
