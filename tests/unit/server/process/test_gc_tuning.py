"""Settings of the garbage collector, applied in this process and taken back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from umbel.server.process.gc_tuning import THRESHOLDS, applied, apply, prepare


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_existing_objects_are_frozen_and_new_ones_are_still_collected() -> None:
    class Knot:
        """An object in a cycle."""

        def __init__(self) -> None:
            self.itself = self

    apply()
    assert gc.get_threshold() == THRESHOLDS
    frozen = gc.get_freeze_count()
    assert frozen > 0
    alive = 0

    def died(_: object) -> None:
        nonlocal alive
        alive -= 1

    kept = []
    for _ in range(THRESHOLDS[0] + 10):
        knot = Knot()
        kept.append(weakref.ref(knot, died))
        alive += 1
    assert alive < THRESHOLDS[0], "the youngest generation was looked through"
    assert gc.get_freeze_count() == frozen


def test_a_process_that_loads_collects_less_often_and_freezes_nothing() -> None:
    frozen = gc.get_freeze_count()
    prepare()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() == frozen
    assert applied()
