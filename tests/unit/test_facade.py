"""The public names: these, from these homes, and none that costs a framework before it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import umbel

PROJECT = Path(__file__).parents[2]


def loaded_after(code: str, *names: str) -> list[str]:
    """Which of the modules stand in sys.modules after the code ran in a fresh interpreter."""
    report = f"import sys; {code}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_public_names_are_these() -> None:
    assert sorted(umbel.__all__) == [
        "Config",
        "ConfigError",
        "NotRunningError",
        "RequestError",
        "Umbel",
        "UmbelError",
        "UpstreamError",
        "__version__",
        "load",
    ]


@pytest.mark.parametrize("name", umbel.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(umbel, name) is getattr(umbel, name)
    assert name in dir(umbel)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'umbel' has no attribute 'Umbell'"):
        umbel.Umbell  # noqa: B018 - reading it is the test


def test_the_package_alone_loads_nothing_heavy() -> None:
    assert loaded_after("import umbel", "trio", "quart", "httpx", "hypercorn", "pydantic", "msgspec") == []


def test_an_error_is_caught_without_loading_the_gateway() -> None:
    assert loaded_after("from umbel import ConfigError", "quart", "httpx", "hypercorn", "pydantic") == []


@pytest.mark.parametrize(
    ("code", "also"),
    [
        ("import umbel.server", ["hypercorn"]),
        ("from umbel.server import *", []),
        ("from umbel.logs import *", ["hypercorn"]),
    ],
)
def test_the_server_and_the_logs_load_no_http_client_and_no_web_framework(code: str, also: list[str]) -> None:
    assert loaded_after(code, "quart", "httpx", "pydantic", "werkzeug", "jmespath", *also) == []


def test_the_version_has_one_home() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "umbel.__version__"}
