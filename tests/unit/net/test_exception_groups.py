"""Exception groups: leaves, unwrapping, and the separation of cancels and crashes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio

from umbel.net.exception_groups import (
    OpaqueError,
    StrayCancelError,
    cancel_reason,
    check_cancel,
    first_leaf,
    holds_only,
    leaves,
    raise_cancels,
    raise_first_cancelled,
    raise_unwrapped,
    split_application_crash,
    split_crash,
    unwrapped,
)

A, B = ValueError("a"), KeyError("b")


class OwnError(Exception):
    """Exception with weak references, which built-in exceptions do not support."""


class UnderivableError(BaseExceptionGroup[BaseException]):
    def derive(self, excs: object) -> UnderivableError:
        raise RuntimeError("no others")


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise OwnError


def deep(*errors: BaseException) -> BaseException:
    """Make a group that is nested deeper than Python's recursion limit."""
    error: BaseException = BaseExceptionGroup("", errors)
    for _ in range(50_000):
        error = BaseExceptionGroup("", [error])
    return error


async def raised_cancel(reason: str | None = None) -> trio.Cancelled:
    """Cancel the scope around the caller, and return its ``Cancelled``."""
    task = trio.lowlevel.current_task()
    assert task.parent_nursery is not None
    task.parent_nursery.cancel_scope.cancel(reason=reason)
    try:
        await trio.lowlevel.checkpoint()
    except trio.Cancelled as error:
        return error
    raise AssertionError("nothing was cancelled")


async def with_cancel(check: Callable[[trio.Cancelled], None], reason: str | None = None) -> None:
    """Call ``check`` with the ``Cancelled`` of a cancelled scope, inside of the scope."""

    async def task() -> None:
        check(await raised_cancel(reason))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)


def test_leaves_of_nested_groups_come_in_order() -> None:
    c = GeneratorExit()
    group = BaseExceptionGroup("", [A, ExceptionGroup("", [B]), c])
    assert list(leaves(group)) == [A, B, c]
    assert list(leaves(A)) == [A]


def test_a_group_deeper_than_pythons_stack_is_split() -> None:
    error = deep(A, B)
    assert list(leaves(error)) == [A, B]
    assert isinstance(pair := unwrapped(error), BaseExceptionGroup) and pair.exceptions == (A, B)
    assert split_crash(error) == (error, None)
    raise_cancels(error)


def test_leaves_are_found_by_their_kind() -> None:
    group = ExceptionGroup("", [A, ExceptionGroup("", [B])])
    assert first_leaf(group, LookupError) is B
    assert first_leaf(group, OSError) is None
    assert first_leaf(A, ValueError) is A
    assert holds_only(group, Exception) and holds_only(A, ValueError)
    assert not holds_only(group, ValueError)


def test_groups_of_one_are_unwrapped_up_to_an_exception_or_a_group_of_several() -> None:
    pair = ExceptionGroup("pair", [A, B])
    assert unwrapped(A) is A
    assert unwrapped(pair) is pair
    assert unwrapped(ExceptionGroup("", [ExceptionGroup("", [A])])) is A
    assert unwrapped(ExceptionGroup("", [pair])) is pair


def test_an_exception_that_is_no_group_of_one_is_not_raised() -> None:
    for error in (A, ExceptionGroup("pair", [A, B])):
        raise_unwrapped(error)
        raise_first_cancelled(error)


def handled(error: BaseException, raise_in_its_place: Callable[[BaseException], None]) -> None:
    """Raise ``error``, and call the function in the ``except`` block."""
    try:
        raise error
    except BaseException as caught:
        raise_in_its_place(caught)
        raise
    finally:
        del error


def test_an_exception_raised_in_the_place_of_its_group_keeps_context_and_cause() -> None:
    error = OwnError()
    error.__context__, error.__cause__ = A, B
    with pytest.raises(OwnError) as caught:
        handled(ExceptionGroup("", [ExceptionGroup("", [error])]), raise_unwrapped)
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (A, B)


@pytest.mark.parametrize("raise_in_its_place", [raise_unwrapped, raise_first_cancelled, raise_cancels])
async def test_an_exception_raised_in_place_of_its_group_is_in_no_cycle(
    raise_in_its_place: Callable[[BaseException], None],
) -> None:
    def check(cancelled: trio.Cancelled) -> None:
        own = OwnError()
        gone = weakref.ref(own)
        group = BaseExceptionGroup("", [own] if raise_in_its_place is raise_unwrapped else [cancelled, own])
        gc.disable()
        try:
            with suppress(BaseException):
                handled(group, raise_in_its_place)
            del own, group
            assert gone() is None
        finally:
            gc.enable()

    await with_cancel(check)


async def test_the_first_cancel_of_a_group_is_raised_in_place_of_the_group() -> None:
    def check(cancelled: trio.Cancelled) -> None:
        context = cancelled.__context__
        with pytest.raises(trio.Cancelled) as caught:
            try:
                raise BaseExceptionGroup("", [A, BaseExceptionGroup("", [cancelled])])
            except BaseExceptionGroup as error:
                raise_first_cancelled(error)
        assert caught.value is cancelled
        assert cancelled.__context__ is context

    await with_cancel(check)


async def test_cancel_reason_is_that_of_the_first_cancel_or_empty() -> None:
    reasons = [cancel_reason(ExceptionGroup("", [A]))]
    await with_cancel(lambda cancelled: reasons.append(cancel_reason(BaseExceptionGroup("", [A, cancelled]))), "why")
    await with_cancel(lambda cancelled: reasons.append(cancel_reason(cancelled)))
    assert reasons == ["", "why", ""]


async def test_cancels_are_raised_without_the_failures_beside_them() -> None:
    def check(cancelled: trio.Cancelled) -> None:
        group = BaseExceptionGroup("", [A, BaseExceptionGroup("", [cancelled, B])])
        with pytest.raises(BaseExceptionGroup) as caught:
            handled(group, raise_cancels)
        assert list(leaves(caught.value)) == [cancelled]
        assert (cause := caught.value.__cause__) and list(leaves(cause)) == [A, B]
        context = cancelled.__context__
        with pytest.raises(trio.Cancelled) as alone:
            handled(deep(A, cancelled), raise_cancels)
        assert (alone.value, cancelled.__context__) == (cancelled, context)
        exit_beside = BaseExceptionGroup("", [cancelled, A, SystemExit()])
        cancels_alone = BaseExceptionGroup("", [cancelled])
        for whole in (exit_beside, cancels_alone, cancelled, A):
            raise_cancels(whole)

    await with_cancel(check)


async def test_a_cancel_is_split_from_a_crash_in_the_same_group() -> None:
    def check(cancelled: trio.Cancelled) -> None:
        crash, rest = split_crash(BaseExceptionGroup("", [A, cancelled]))
        assert (crash and list(leaves(crash)), rest and list(leaves(rest))) == ([A], [cancelled])
        assert split_application_crash(BaseExceptionGroup("", [A, cancelled]))[0] is A
        assert split_crash(cancelled) == (None, cancelled)
        assert split_crash(deep(A, cancelled)) == (None, cancelled)
        assert split_crash(UnderivableError("", [A, cancelled])) == (None, cancelled)
        check_cancel(cancelled)

    await with_cancel(check)


async def test_a_cancel_of_an_ended_scope_is_a_crash() -> None:
    kept: list[trio.Cancelled] = []
    await with_cancel(kept.append)
    assert split_crash(kept[0]) == (kept[0], None)
    with pytest.raises(StrayCancelError):
        check_cancel(kept[0])


def test_an_exception_that_cannot_be_split_or_inspected_is_a_crash() -> None:
    whole = UnderivableError("", [A, SystemExit()])
    assert split_crash(whole) == (whole, None)
    unreadable = UnreadableError()
    assert split_application_crash(unreadable) == (unreadable, None)

    class UnplacedError(Exception):
        @property
        def __traceback__(self) -> None:  # type: ignore[override]
            raise OwnError

    crash, rest = split_application_crash(ExceptionGroup("", [UnplacedError()]))
    assert isinstance(crash, OpaqueError) and rest is None
