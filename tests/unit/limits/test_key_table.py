"""The table of the keys of a limit: which keys it keeps, and what a key weighs."""

from __future__ import annotations

import random
import tracemalloc

from umbel.limits.key_table import KeyTable
from umbel.policy.gcra import NEVER


def test_a_key_has_its_latest_tat_and_an_unknown_one_none() -> None:
    table = KeyTable(10, 1.0)
    for tat in (1.5, 1.7, 9.0, 12.5):
        table.set("a", tat, 0.0)
        assert table.get("a") == tat
    assert table.get("b") == NEVER
    assert len(table) == 1


def test_a_full_table_evicts_idle_keys_and_keeps_the_live_ones() -> None:
    table = KeyTable(100, 1.0)
    for number in range(50):
        table.set(f"live{number}", 1000.0 + number, 0.0)
        table.set(f"idle{number}", 5.0, 0.0)
    for number in range(50):
        table.set(f"new{number}", 2000.0, 10.0)
    assert table.evicted == 0
    assert all(table.get(f"live{number}") == 1000.0 + number for number in range(50))
    assert all(table.get(f"idle{number}") == NEVER for number in range(50))
    assert len(table) == 100


def test_a_table_full_of_live_keys_evicts_the_one_that_is_idle_next() -> None:
    table = KeyTable(3, 1.0)
    for key, tat in (("late", 90.0), ("early", 20.0), ("middle", 50.0)):
        table.set(key, tat, 0.0)
    table.set("new", 40.0, 10.0)
    assert (table.evicted, len(table)) == (1, 3)
    assert table.get("early") == NEVER
    assert table.get("late") == 90.0


def test_new_keys_evict_idle_ones_though_the_table_is_not_full() -> None:
    table = KeyTable(10_000, 1.0)
    for number in range(1000):
        table.set(number.to_bytes(4), 1.0, 0.0)
    for number in range(600):
        table.set(f"new{number}", 100.0, 50.0)
    assert len(table) == 600
    assert table.evicted == 0


def test_a_table_agrees_with_a_plain_dict_and_never_exceeds_its_bound() -> None:
    chance = random.Random(1)
    table, model, now = KeyTable(50, 0.5), {}, 0.0
    for _ in range(20_000):
        now += chance.random() * 0.05
        key = str(chance.randrange(40))
        tat = max(model.get(key, now), now) + chance.random() * 3
        table.set(key, tat, now)
        model[key] = tat
        asked = str(chance.randrange(40))
        assert table.get(asked) == model.get(asked, NEVER) or model[asked] <= now
    assert table.evicted == 0
    assert len(table._times) < 200


def test_a_flood_of_keys_stays_within_the_bound_with_few_buckets() -> None:
    table = KeyTable(500, 0.01)
    for number in range(50_000):
        table.set(str(number), number * 0.001 + random.Random(number).random() * 10, number * 0.001)
        assert len(table) <= 500
    assert table.evicted > 0
    assert len(table._buckets) <= 1100


def test_a_key_of_an_address_weighs_at_most_300_bytes() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = KeyTable(count, 1.0)
        for number in range(count):
            table.set(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", number % 16 + 0.5, 0.0)
        weight = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert weight <= 300
