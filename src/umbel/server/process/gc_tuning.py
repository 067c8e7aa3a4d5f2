"""Settings of Python's garbage collector for a process that does nothing but serve.

They belong to the owner of the process: a server inside of another program must not change that program's collector.
"""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 20)
"""Arguments of ``gc.set_threshold``: new objects per collection of generation 0, and collections per next generation.

A request makes thousands of containers, which reference counts free at its end. With Python's default of 700 the
collector searches them for cycles several times per request and finds almost none, which takes a tenth of all CPU.
"""


def applied() -> bool:
    """Whether ``prepare`` or ``apply`` was called in this process."""
    return gc.get_threshold() == THRESHOLDS


def prepare() -> None:
    """Collect new objects less often from now on: to be called before the application is loaded.

    A large configuration makes objects that stay, and searching them for cycles again and again takes a quarter of the
    time of loading it.
    """
    gc.set_threshold(*THRESHOLDS)


def apply() -> None:
    """Freeze the objects that exist now (modules, classes, configuration), and collect new ones less often.

    To be called once, after the application is loaded. Cycles are still collected, after ``THRESHOLDS`` new objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
