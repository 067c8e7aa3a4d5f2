"""Loading of a configuration that is no file: TOML as text, or its data."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from umbel.config.loading.load import load_given
from umbel.core.errors import ConfigError

TEXT = '[upstreams.u]\nurls = ["${URL}"]\n[logs]\ndir = "here"\n'


@pytest.mark.parametrize("given", [TEXT, tomllib.loads(TEXT)])
def test_variables_and_relative_paths_are_resolved(given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_given(given, environ={"URL": "http://users"})
    assert [each.url for each in config.upstreams["u"].replicas] == ["http://users"]
    assert config.logs.dir == str(tmp_path / "here")


def test_given_data_are_not_changed() -> None:
    data = tomllib.loads(TEXT)
    load_given(data, environ={"URL": "http://users"})
    assert data == tomllib.loads(TEXT)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("[upstreams.u]\nurlz = []", "configuration:2: upstreams.u.urlz: is not a key of [upstreams.u]; did you mean"),
        ({"upstreams": {"u": {"urlz": []}}}, "configuration: upstreams.u.urlz: is not a key of [upstreams.u]"),
        ("[upstreams", "configuration:1: is not TOML"),
        ({"routes": [[[]]]}, "configuration: routes[0]: "),
    ],
)
def test_mistakes_are_named(given: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_given(given)
    assert str(caught.value).startswith(problem)
