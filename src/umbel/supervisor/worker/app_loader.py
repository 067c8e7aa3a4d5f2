"""Loading the application that ``module:app`` names, or the gateway of a configuration file.

The gateway is imported only if it is the application, so that it takes no memory in workers of other applications.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.loading.empty_config import require_routes
from ...core.errors import ConfigError, UmbelError

if TYPE_CHECKING:
    from ...config.schema.sections import Config


class AppImportError(UmbelError):
    """The application does not exist. ``str(error)`` says what was looked for, and where."""


def load_app(spec: str | None, config: str | None, routes: int = 0, *, loaded: Config | None = None) -> Any:
    """Load the application that ``spec`` names; without ``spec``, the gateway of the configuration file.

    Args:
        spec: ``module:app``, as for ``import_app``; None: the gateway.
        config: the path of the gateway's configuration file; None means umbel.toml.
        routes: the number of routes that the file had when it was accepted; it may have been truncated since.
        loaded: the configuration that was accepted, if this process has read it; None: the file is read.

    Raises:
        ConfigError: the configuration cannot be used, or has lost most of its routes.
        AppImportError: the module has no such application.
        BaseException: whatever the import of the module raises.
    """
    if spec is not None:
        return import_app(spec)
    from ...gateway.app import Umbel

    if loaded is not None:
        return Umbel("umbel", loaded, static_folder=None)
    app = Umbel.from_file(config or "umbel.toml")
    require_routes(config or "umbel.toml", len(app.gateway_config.routes), routes, need_some=routes > 0)
    return app


def config_error_of(app: Any) -> ConfigError | None:
    """Return the configuration error that an application keeps from its failed start; None if there is none."""
    error = getattr(app, "config_error", None)
    return error if isinstance(error, ConfigError) else None


def missing_keys_of(app: Any) -> str:
    """Return a sentence about the keys without which an application did not start; empty if it was not for keys."""
    error = getattr(app, "keys_error", None)
    return "" if error is None else str(error)


def import_app(spec: str) -> Any:
    """Import the application that ``module:app`` names.

    ``module`` means ``module:app``. ``module:make()`` calls the function ``make`` without arguments and takes its
    result. The name may have dots. The working directory is searched first, as by ``python -m``.

    Raises:
        AppImportError: there is no such module, it has no such name, or the object is not an application.
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
        reason = f'"{spec}": there is no module "{module_name}" in {here} or among the installed packages'
        raise AppImportError(f"{reason}; write MODULE:APP, such as shop.main:app") from error
    path = path or "app"
    for name in path.removesuffix("()").split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            reason = f'"{spec}": the module {module_name} has no {name}'
            raise AppImportError(f"{reason}; write MODULE:NAME with the name of the application") from error
    if path.endswith("()"):
        found = found()
    if not callable(found):
        raise AppImportError(f'"{spec}" is not an ASGI application: it cannot be called')
    return found


def _is_missing(module_name: str, error: Exception) -> bool:
    """Whether the module itself does not exist, or its name is invalid; False for a module that it imports."""
    if isinstance(error, ModuleNotFoundError):
        return error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
    return not all(part.isidentifier() for part in module_name.split("."))
