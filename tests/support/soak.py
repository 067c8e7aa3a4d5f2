"""Whether this is ``make soak``, in which churns and storms run in full; ``make test`` runs a tenth or less of them."""

from __future__ import annotations

import os

SOAK = os.environ.get("UMBEL_SOAK") == "1"
