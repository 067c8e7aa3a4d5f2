"""A failed start of a command that serves: its message and exit status."""

from __future__ import annotations

import errno

import click
import pytest
import trio
from hypercorn.utils import LifespanFailureError

from umbel.cli.running import run
from umbel.core.errors import ConfigError, ConfigProblem
from umbel.server.process.listen import BindError


def fails_with(*errors: BaseException, depth: int = 1) -> None:
    """Run a program whose tasks fail with these errors in nested nurseries."""

    async def fail(error: BaseException) -> None:
        raise error

    async def main(depth: int = depth) -> None:
        async with trio.open_nursery() as nursery:
            if depth > 1:
                nursery.start_soon(main, depth - 1)
                return
            for error in errors:
                nursery.start_soon(fail, error)

    run(main)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_address_in_use_is_one_sentence(depth: int) -> None:
    with pytest.raises(ConfigError, match=r"^bind: cannot listen on 127\.0\.0\.1:80: Permission denied$"):
        fails_with(BindError(errno.EACCES, "cannot listen on 127.0.0.1:80: Permission denied"), depth=depth)


def test_an_error_of_the_system_that_is_no_bind_is_raised_unchanged() -> None:
    full = OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files") as caught:
        fails_with(full, depth=2)

    assert caught.value is full


def test_an_application_that_cannot_start_is_one_sentence() -> None:
    with pytest.raises(click.ClickException, match="the database is away"):
        fails_with(LifespanFailureError("startup", "the database is away"))


def test_a_configuration_error_is_raised_unchanged() -> None:
    mistake = ConfigError([ConfigProblem("umbel.toml", 1, "routes", "wrong")])

    with pytest.raises(ConfigError) as caught:
        fails_with(mistake, depth=2)

    assert caught.value is mistake


def test_keyboard_interrupt_is_raised_without_its_groups() -> None:
    with pytest.raises(KeyboardInterrupt):
        fails_with(KeyboardInterrupt(), depth=2)


def test_several_failures_are_raised_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        fails_with(ValueError("left"), KeyError("right"))

    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}


def test_a_program_that_succeeds_gives_its_result() -> None:
    fails_with()
