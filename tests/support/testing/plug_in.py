"""The options of pytest that load the plug-in of ``umbel.testing``."""

from __future__ import annotations

PLUG_IN = ("-p", "umbel.testing.pytest_plugin")
"""An environment whose Umbel was installed before it had the plug-in does not know its entry point."""
