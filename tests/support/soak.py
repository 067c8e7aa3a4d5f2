"""Whether this is ``make soak``, in which churns and storms run in full, and in ``make test`` at a tenth."""

from __future__ import annotations

import os

SOAK = os.environ.get("UMBEL_SOAK") == "1"
