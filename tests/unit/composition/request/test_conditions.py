"""Conditional requests: which conditions are forwarded, and their statuses and validators."""

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
def test_the_conditions_that_go_on(forwarded: list[str], headers: dict[str, str], expected: list[str]) -> None:
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
def test_the_statuses_that_become_the_answers(names: list[str], method: str, statuses: set[int]) -> None:
    assert answering_statuses(names, method) == statuses


def test_what_a_call_without_conditions_has_more() -> None:
    assert passed_for_conditions(()) == validators(()) == frozenset()


def test_validators_are_those_of_the_conditions() -> None:
    assert b"etag" in validators([TAG])
    assert b"last-modified" not in validators([TAG])
    assert b"etag" not in validators([DATE])
    assert {b"etag", b"last-modified"} <= validators(["if-range"])
    assert passed_for_conditions([TAG]) == {412, 428}
    assert passed_for_conditions(["range"]) == {412, 416, 428}
