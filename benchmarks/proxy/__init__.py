"""``make bench-proxy``: a pass-through route beside other proxies. ``__main__.py`` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # The modules that the benchmarks share.
