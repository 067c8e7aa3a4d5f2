"""The labs as they are written: numbers, texts, programs."""

from __future__ import annotations

import ast

import pytest

from umbel.labs.model import PACKAGES, Lab, all_labs, lab_of

LABS = list(all_labs())


def test_the_labs_are_numbered_as_their_folders() -> None:
    assert LABS
    assert {lab.number: lab.package for lab in LABS} == PACKAGES
    assert list(PACKAGES) == sorted(PACKAGES)


@pytest.mark.parametrize("number", [0, -1, max(PACKAGES) + 1])
def test_an_unknown_number_is_an_error_that_names_the_range(number: int) -> None:
    known = ", ".join(map(str, PACKAGES))
    with pytest.raises(ValueError, match=rf"no lab {number}; the labs are {known}\."):
        lab_of(number)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.package)
def test_a_lab_has_a_right_choice_and_an_expected_figure_for_each_column(lab: Lab) -> None:
    assert 0 <= lab.right < len(lab.choices)
    assert len(set(lab.choices)) == len(lab.choices) >= 2
    assert list(lab.expected) == [column.key for column in lab.columns]
    assert lab.over_at is None or (lab.over and lab.over_at < lab.horizon)
    assert lab.why


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.package)
def test_the_programs_of_a_lab_are_short_and_mix_no_libraries(lab: Lab) -> None:
    for column in lab.columns:
        source = lab.source(column)
        assert source.count("\n") <= 60, column.module
        imported = {
            alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
        }
        assert column.library in imported
        assert not ({"asyncio", "trio"} - {column.library}) & imported
