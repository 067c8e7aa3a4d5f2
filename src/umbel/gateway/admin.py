"""The settings of the admin side in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..admin.settings import AdminSettings
from ..logs.recorder import STREAMS, path_of

if TYPE_CHECKING:
    from ..config.schema.sections import Config


def admin_settings(config: Config) -> AdminSettings:
    """The settings of the admin side. Its socket creates the directory of the logs if a log has a file there."""
    writes_files = any(path_of(config.logs, name) is not None for name in STREAMS)
    return AdminSettings.of(config.admin, config.logs.dir, creates=writes_files)
