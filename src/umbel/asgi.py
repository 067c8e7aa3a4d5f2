"""ASGI application of a configuration file, for ``hypercorn -k trio umbel.asgi:app`` and other ASGI servers on trio.

The file is ``$UMBEL_CONFIG``, or ``umbel.toml`` in the working directory. If the configuration cannot be used, the
import writes the mistakes to stderr and exits with status 78.
"""

from __future__ import annotations

import os
import sys

from .config.loading.empty_config import allows_empty, require_file, require_routes
from .core.errors import ConfigError
from .gateway.app import Umbel
from .server import install_in_hypercorn

# EX_CONFIG of sysexits.h.
_EXIT_CONFIG = 78


def _application() -> Umbel:
    try:
        file = os.environ.get("UMBEL_CONFIG") or "umbel.toml"
        require_file(file)
        application = Umbel.from_file(file)
        require_routes(file, len(application.gateway_config.routes), need_some=not allows_empty())
        return application
    except ConfigError as error:
        # If the exception propagated, the server would print its own traceback around these lines. SystemExit also
        # sets the exit status of a server that imports the application in its own process. (Hypercorn's master exits
        # with 0 in any case.)
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_EXIT_CONFIG) from error


install_in_hypercorn()  # Has no effect in the process of another server.
app = _application()
