"""What a configuration must stand beside its schema before it is served: plans and clients can be made of it.

Handed to ``config.load.load`` by everything that loads a configuration to serve or to explain it. Starts nothing.
"""

from __future__ import annotations

from ..composition.plan import compiler, warnings
from ..config.loading import contradictions
from ..config.loading.load import Check
from ..logs import advice
from ..upstream import from_config

CHECKS: tuple[Check, ...] = (compiler.check, from_config.check)
WARNINGS: tuple[Check, ...] = (
    contradictions.check,
    warnings.warn,
    from_config.warn,
    advice.warn,
)
"""What ``umbel check`` tells of a configuration that can be served."""
