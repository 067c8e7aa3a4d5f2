"""The public names of ``umbel``: the list of them, and that importing them loads no framework before it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import umbel

PROJECT = Path(__file__).parents[2]


def loaded_after(code: str, *names: str) -> list[str]:
    """Return which of the modules are loaded after the code has run in a new interpreter."""
    report = f"import sys; {code}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_list_of_public_names() -> None:
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
def test_each_public_name_can_be_read(name: str) -> None:
    assert getattr(umbel, name) is getattr(umbel, name)
    assert name in dir(umbel)


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'umbel' has no attribute 'Umbell'"):
        umbel.Umbell  # noqa: B018 - reading it is the test


def test_importing_umbel_loads_no_dependency() -> None:
    assert loaded_after("import umbel", "trio", "quart", "httpx", "hypercorn", "pydantic", "msgspec") == []


def test_importing_an_error_class_does_not_load_the_gateway() -> None:
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


def test_the_version_is_defined_only_in_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "umbel.__version__"}
