"""Decisions with ``combine = "first"`` and ``"quorum"``."""

from __future__ import annotations

import pytest
import trio

from tests.support.composition.composing import answer, compose
from umbel.core.failure_kinds import Kind


def route(combine: str, calls: str = "abc") -> str:
    head = f'[[routes]]\npath = "/r/<id>"\n{combine}\n'
    return head + "".join(f'[routes.calls.{name}]\nupstream = "u"\npath = "/{name}"\n' for name in calls)


FIRST = route('combine = "first"')
QUORUM = route('combine = "quorum"\nquorum = 2')


async def test_with_first_a_success_answers_and_cancels_the_rest(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(FIRST, {"/a": answer("a", after=3), "/b": answer("b", after=1), "/c": answer("c", after=2)})
    assert ran.result.answer == "b"
    assert ran.result.completed
    assert ran.result.incomplete == ()
    assert ran.elapsed == pytest.approx(1)
    assert ran.outcomes["a"].failure.kind is Kind.CANCELLED


async def test_with_first_failures_before_a_success_have_no_effect(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(FIRST, {"/a": answer("a", after=3), "/b": answer(0, status=500), "/c": answer(0, status=404)})
    assert ran.result.answer == "a"
    assert ran.result.completed


async def test_with_first_and_only_failures_the_first_failure_is_the_answer(autojump_clock: trio.abc.Clock) -> None:
    failing = {
        "/a": answer(0, status=500, after=2),
        "/b": answer(0, status=404, after=1),
        "/c": answer(0, status=409, after=3),
    }
    ran = await compose(FIRST, failing)
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404
    assert ran.elapsed == pytest.approx(3)


async def test_a_quorum_is_the_first_k_successes_in_config_order(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(QUORUM, {"/a": answer("a", after=2), "/b": answer("b", after=9), "/c": answer("c", after=1)})
    assert ran.result.answer == ["a", "c"]
    assert ran.result.completed
    assert ran.elapsed == pytest.approx(2)


async def test_a_quorum_that_cannot_be_reached_ends_the_composition_at_once(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(
        QUORUM, {"/a": answer(0, status=503, after=1), "/b": answer(0, status=404, after=2), "/c": answer(1, after=9)}
    )
    assert ran.result.failure is not None
    assert ran.result.failure.status == 502
    assert ran.elapsed == pytest.approx(2)


async def test_a_quorum_not_reached_at_the_deadline_is_a_504(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(QUORUM, {"/a": answer(1), "/b": answer(2, after=9), "/c": answer(3, after=9)}, deadline=1)
    assert ran.result.failure is not None
    assert ran.result.failure.status == 504


async def test_only_calls_without_dependants_count_for_first_and_quorum() -> None:
    text = route('combine = "first"', "ab").replace('path = "/b"', 'path = "/b/{a.id}"')
    ran = await compose(text, {"/a": answer({"id": 1}), "/b/1": answer("b")})
    assert ran.result.answer == "b"
    failed = await compose(text, {"/a": answer({}, status=404)})
    assert failed.result.failure is not None
    assert failed.result.failure.status == 404


async def test_skipped_candidates_count_neither_as_success_nor_as_failure() -> None:
    text = route('combine = "first"', "ab") + 'when = "`false`"\n'
    ran = await compose(text, {"/a": answer(1)})
    assert ran.result.answer == 1
    text = text.replace('path = "/a"', 'path = "/a"\nwhen = "`false`"')
    ran = await compose(text, {})
    assert ran.result.failure is None
    assert ran.result.answer is None
