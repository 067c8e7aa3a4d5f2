"""The shares of a limit in worker and master: what messages hold, their bounds, and merging."""

from __future__ import annotations

import pytest

from umbel.limits.key_table import KeyTable
from umbel.limits.sharing import (
    KEYS_PER_MESSAGE,
    UNCOUNTED_MIN,
    CommonTats,
    MasterShare,
    Report,
    Spent,
    WorkerShare,
    key_of_wire,
    wire_key,
)
from umbel.policy.gcra import NEVER, Key


def worker(keys_max: int = 10_000) -> tuple[WorkerShare, KeyTable]:
    table = KeyTable(keys_max, 1.0)
    return WorkerShare(table, keys_max), table


def reported(share: WorkerShare) -> Report:
    report = share.report()
    assert report is not None
    share.sent(report)
    return report


def test_a_report_has_the_sum_that_was_spent_since_the_last_one() -> None:
    share, _ = worker()
    assert share.report() is None
    assert [share.spend("a", 1.0, 11.0), share.spend("a", 2.0, 13.0), share.spend("b", 1.0, 11.0)] == [
        True,
        False,
        False,
    ]
    assert reported(share) == Report(1, {"a": Spent(3.0, 13.0), "b": Spent(1.0, 11.0)})
    assert share.report() is None
    assert share.spend("a", 1.0, 14.0)
    assert reported(share) == Report(2, {"a": Spent(1.0, 14.0)})


def test_a_report_that_was_refused_is_part_of_the_next_one() -> None:
    share, _ = worker()
    share.spend("a", 1.0, 11.0)
    assert share.report() == Report(1, {"a": Spent(1.0, 11.0)})
    share.spend("a", 1.0, 12.0)
    assert share.report() == Report(1, {"a": Spent(2.0, 12.0)})


def test_many_keys_are_reported_in_several_messages() -> None:
    share, _ = worker()
    for number in range(KEYS_PER_MESSAGE + 5):
        share.spend(str(number), 1.0, 11.0)
    assert [share.reports_due, len(reported(share).spent), share.reports_due, len(reported(share).spent)] == [
        *(2, KEYS_PER_MESSAGE),
        *(1, 5),
    ]
    assert share.reports_due == 0


def test_a_master_that_does_not_answer_gets_a_bounded_number_of_keys() -> None:
    share, _ = worker()
    for _ in range(UNCOUNTED_MIN // KEYS_PER_MESSAGE):
        for number in range(KEYS_PER_MESSAGE):
            share.spend(str(number), 1.0, 11.0)
        reported(share)
    share.spend("0", 1.0, 30.0)
    assert share.report() is None
    share.adopt(CommonTats(1, [("0", 12.0)]), 0.0)
    assert reported(share) == Report(UNCOUNTED_MIN // KEYS_PER_MESSAGE + 1, {"0": Spent(1.0, 30.0)})


def test_a_worker_with_more_keys_may_report_each_before_the_first_is_counted() -> None:
    share, _ = worker(keys_max=3 * UNCOUNTED_MIN)
    for number in range(3 * UNCOUNTED_MIN):
        share.spend(str(number), 1.0, 11.0)
    assert sum(len(reported(share).spent) for _ in range(share.reports_due)) == 3 * UNCOUNTED_MIN


def test_keys_beyond_the_bound_are_not_reported_and_counted() -> None:
    share, _ = worker(keys_max=2)
    for key in ("a", "b", "c", "c", "a"):
        share.spend(key, 1.0, 11.0)
    assert share.unreported == 2
    assert [*reported(share).spent] == ["a", "b"]


def test_a_common_tat_is_moved_by_the_spending_that_it_does_not_hold() -> None:
    share, table = worker()
    for _ in range(3):
        share.spend("a", 1.0, 11.0)
        reported(share)
    share.spend("a", 1.0, 11.0)
    share.adopt(CommonTats(1, [("a", 20.0), ("b", 8.0), ("idle", 4.0)]), 5.0)
    assert [table.get(key) for key in ("a", "b", "idle")] == [23.0, 8.0, NEVER]
    share.adopt(CommonTats(3, [("a", 24.0)]), 5.0)
    assert table.get("a") == 25.0


def test_a_common_tat_never_moves_the_own_one_back() -> None:
    share, table = worker()
    table.set("a", 30.0, 0.0)
    share.adopt(CommonTats(0, [("a", 20.0)]), 5.0)
    assert table.get("a") == 30.0


def test_the_master_adds_what_workers_spent_and_sends_it_to_all() -> None:
    share = MasterShare(100, 1.0)
    share.add("idle", 0.0)
    share.count("one", Report(1, {"a": Spent(2.0, 12.0)}), 10.0)
    share.count("two", Report(7, {"a": Spent(3.0, 13.0)}), 10.0)
    assert share.tats_for("one") == CommonTats(1, [("a", 15.0)])
    assert share.tats_for("two") == CommonTats(7, [("a", 15.0)])
    assert share.tats_for("idle") == CommonTats(0, [("a", 15.0)])


def test_time_that_passed_unused_is_not_a_debt() -> None:
    share = MasterShare(100, 1.0)
    share.count("one", Report(1, {"a": Spent(2.0, 12.0)}), 10.0)
    share.count("one", Report(2, {"a": Spent(1.0, 101.0)}), 100.0)
    assert share.tats_for("one") == CommonTats(2, [("a", 101.0)])


def test_a_new_worker_is_to_get_the_keys_that_have_something_spent() -> None:
    share = MasterShare(100, 1.0)
    share.count("one", Report(1, {"a": Spent(2.0, 12.0), "b": Spent(90.0, 100.0)}), 10.0)
    share.add("new", 50.0)
    assert share.tats_for("new") == CommonTats(0, [("b", 100.0)])
    share.add("new", 50.0)
    tats = share.tats_for("new")
    assert tats is not None
    share.sent("new", tats)
    share.add("new", 50.0)
    assert share.tats_for("new") is None


def test_many_tats_are_sent_in_several_messages() -> None:
    share = MasterShare(10_000, 1.0)
    share.count("one", Report(1, {str(number): Spent(1.0, 11.0) for number in range(KEYS_PER_MESSAGE + 1)}), 10.0)
    lengths = []
    while (tats := share.tats_for("one")) is not None:
        lengths.append(len(tats.tats))
        share.sent("one", tats)
    assert lengths == [KEYS_PER_MESSAGE, 1]


def test_a_worker_that_has_ended_gets_nothing_and_what_it_spent_stays() -> None:
    share = MasterShare(100, 1.0)
    share.count("one", Report(1, {"a": Spent(2.0, 12.0)}), 10.0)
    share.forget("one")
    assert share.tats_for("one") is None
    share.add("two", 10.0)
    assert share.tats_for("two") == CommonTats(0, [("a", 12.0)])


def test_the_keys_that_a_worker_is_to_get_are_bounded() -> None:
    share = MasterShare(10, 1.0)
    for number in range(100):
        share.count("one", Report(number + 1, {str(number): Spent(2.0, 12.0 + number)}), 10.0)
        tats = share.tats_for("one")
        assert tats is not None
        assert len(tats.tats) <= 20
        assert tats.counted == number + 1


def test_the_master_evicts_within_its_bound_and_counts_live_keys() -> None:
    share = MasterShare(2, 1.0)
    share.count("one", Report(1, {key: Spent(2.0, 12.0) for key in ("a", "b", "c")}), 10.0)
    assert (len(share), share.evicted) == (2, 1)


@pytest.mark.parametrize("key", [None, "", "a", "t", "\0b", b"", b"\0[1]", bytes(range(256))])
def test_a_key_is_the_same_after_its_way_in_a_message(key: Key) -> None:
    assert key_of_wire(wire_key(key)) == key
