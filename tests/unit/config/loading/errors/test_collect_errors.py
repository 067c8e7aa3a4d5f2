"""Collection of the mistakes in two files in one error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from umbel.config.loading.errors.collect_errors import collect_errors
from umbel.core.errors import ConfigError, ConfigProblem


def refusing(name: str) -> Callable[[], str]:
    def refuse() -> str:
        raise ConfigError([ConfigProblem(name, 1, "key", "is wrong")])

    return refuse


def test_the_mistakes_of_two_files_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"^a:1: key: is wrong\nb:1: key: is wrong$"):
        collect_errors(refusing("a"), refusing("b"))
    with pytest.raises(ConfigError, match=r"^a:1: key: is wrong$"):
        collect_errors(refusing("a"), lambda: "fine")
    with pytest.raises(ConfigError, match=r"^b:1: key: is wrong$"):
        collect_errors(lambda: "fine", refusing("b"))
    assert collect_errors(lambda: "one", lambda: "two") == ("one", "two")
