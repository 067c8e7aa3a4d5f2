"""The application that a configuration file describes, for ``hypercorn umbel.asgi:app`` and other ASGI servers.

Imported by the server; the file is ``$UMBEL_CONFIG``, or ``umbel.toml`` in the working directory.
"""

from __future__ import annotations

import os
import sys

from .config.loading.empty_config import allows_empty, require_file, require_routes
from .core.errors import ConfigError
from .gateway.app import Umbel
from .server import install_in_hypercorn

# What sysexits.h calls EX_CONFIG.
_EXIT_CONFIG = 78


def _application() -> Umbel:
    try:
        file = os.environ.get("UMBEL_CONFIG") or "umbel.toml"
        require_file(file)
        application = Umbel.from_file(file)
        require_routes(file, len(application.gateway_config.routes), need_some=not allows_empty())
        return application
    except ConfigError as error:
        # An importing server would print a page of its own frames, with the one line that helps at the end of it.
        # This way the lines stand alone, and a server that loads us in its own process exits with the right status.
        # (Hypercorn's master ends with 0 whatever its worker raised.)
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_EXIT_CONFIG) from error


install_in_hypercorn()  # In any other server's process it changes nothing that is used.
app = _application()
