"""Conditional requests: the conditions that are forwarded, and the statuses and validators of their answers."""

from __future__ import annotations

import pytest

from umbel.composition.request.conditions import answering_statuses, passed_for_conditions, sent_conditions, validators

TAG, DATE = "if-none-match", "if-modified-since"


@pytest.mark.parametrize(
    ("forwarded", "headers", "expected"),
    [
        ([TAG, DATE], {TAG: "x", DATE: "y"}, [TAG, DATE]),
        ([TAG, DATE], {"accept": "x"}, []),
        ([DATE], {DATE: "y"}, [DATE]),
        ([DATE], {TAG: "x", DATE: "y"}, []),
        (["if-unmodified-since"], {"if-match": "x", "if-unmodified-since": "y"}, []),
        (["range", "if-range"], {"range": "items=0-1", "if-range": "x"}, ["range", "if-range"]),
        (["range", "if-range"], {"range": " Bytes=0-1", "if-range": "x"}, []),
        (["if-range"], {"if-range": "x"}, ["if-range"]),
    ],
)
def test_the_conditions_that_are_forwarded(forwarded: list[str], headers: dict[str, str], expected: list[str]) -> None:
    assert sent_conditions(forwarded, headers) == expected


@pytest.mark.parametrize(
    ("names", "method", "statuses"),
    [
        ([], "GET", set()),
        ([TAG], "GET", {304}),
        ([DATE], "HEAD", {304}),
        ([TAG], "PUT", set()),
        (["if-match"], "GET", set()),
        (["range", TAG], "GET", {206, 304}),
    ],
)
def test_the_statuses_that_the_answer_takes_over(names: list[str], method: str, statuses: set[int]) -> None:
    assert answering_statuses(names, method) == statuses


def test_a_call_without_conditions_has_no_further_statuses_and_fields() -> None:
    assert passed_for_conditions(()) == validators(()) == frozenset()


def test_the_answer_has_the_validators_of_the_forwarded_conditions() -> None:
    assert b"etag" in validators([TAG])
    assert b"last-modified" not in validators([TAG])
    assert b"etag" not in validators([DATE])
    assert {b"etag", b"last-modified"} <= validators(["if-range"])
    assert passed_for_conditions([TAG]) == {412, 428}
    assert passed_for_conditions(["range"]) == {412, 416, 428}
