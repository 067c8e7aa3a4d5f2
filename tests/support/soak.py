"""``SOAK``: whether ``make soak`` runs, with the full number of rounds; ``make test`` runs at most a tenth of them."""

from __future__ import annotations

import os

SOAK = os.environ.get("UMBEL_SOAK") == "1"
