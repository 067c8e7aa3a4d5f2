"""Redaction of the console handlers of the standard library's logging, within its block only."""

from __future__ import annotations

import io
import logging

import pytest

from umbel.logs import Redactor, redacted_console, safe_traceback

SECRET = "password=hunter2hunter2"


class Console(io.StringIO):
    """A stream that replaces the console, as those of some frameworks."""

    name = "<stderr>"


@pytest.fixture
def written() -> Console:
    return Console()


@pytest.fixture
def logger(written: Console) -> logging.Logger:
    """A logger that writes to the console."""
    logger = logging.Logger("console")
    logger.addHandler(logging.StreamHandler(written))
    return logger


def test_a_traceback_on_the_console_has_no_secret(logger: logging.Logger, written: Console) -> None:
    with redacted_console(Redactor(["x-own"])):
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.exception("it failed with x-own=abcabcabc")
    assert "ValueError: password=[redacted]" in written.getvalue()
    assert "x-own=[redacted]" in written.getvalue()
    assert SECRET not in written.getvalue()


def test_the_handlers_are_restored_after_the_block(logger: logging.Logger, written: Console) -> None:
    (handler,) = logger.handlers
    own = logging.Formatter("own: %(message)s")
    handler.setFormatter(own)
    with redacted_console(Redactor()):
        logger.warning(SECRET)
    assert handler.formatter is own
    logger.warning("plain")
    assert written.getvalue() == "own: password=[redacted]\nown: plain\n"


def test_a_handler_of_a_file_is_left_alone(logger: logging.Logger) -> None:
    handler = logging.NullHandler()
    logger.addHandler(handler)
    with redacted_console(Redactor()):
        assert handler.formatter is None


def test_a_traceback_as_text_has_no_secret() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        text = safe_traceback(error)
    assert text.startswith("Traceback")
    assert text.endswith("ValueError: password=[redacted]\n")
