"""The garbage collector of a process that does nothing but serve.

For whoever owns the process, once the application is loaded: a server may run in anybody's program, whose collector
is not to be changed.
"""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 20)
"""Objects that may be new before the youngest generation is looked through, and how often that comes before the next.

Requests make thousands of containers that die by themselves when they end. With Python's 700 the collector looks for
cycles among those in flight several times per request and finds next to none: a tenth of all CPU.
"""


def owned() -> bool:
    """Whether this process does nothing but serve, as ``spare`` was told: then the server may decide for all of it."""
    return gc.get_threshold() == THRESHOLDS


def spare() -> None:
    """Leave alone what is there by now (modules, classes, the configuration), and look less often among what is new.

    Nothing is given up: cycles are still found, some tens of thousands of objects later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
