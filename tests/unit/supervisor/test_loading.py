"""From ``module:app`` to an application."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from umbel.supervisor.loading import AppImportError, import_app, load_application
from umbel.supervisor.options import Application

MODULE = """
async def app(scope, receive, send): ...
class inner:
    @staticmethod
    async def app(scope, receive, send): ...
def make():
    return app
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"made_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize(("path", "name"), [("", "app"), (":app", "app"), (":make()", "app"), (":inner.app", "app")])
def test_an_application_is_found_where_one_stands(module: str, path: str, name: str) -> None:
    assert import_app(module + path).__name__ == name


@pytest.mark.parametrize(
    ("path", "said"), [(":nothing", "has no nothing"), (":inner.nothing", "has no"), (":number", "cannot be called")]
)
def test_what_is_no_application_is_told_in_one_sentence(module: str, path: str, said: str) -> None:
    with pytest.raises(AppImportError, match=said):
        import_app(module + path)


def test_an_application_gets_the_limits_of_the_configuration_unless_it_carries_its_own(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "umbel.toml").write_text("[server]\nmax_in_flight = 7\n")
    loaded = load_application(Application(f"{module}:app", "umbel.toml", settings={"graceful_timeout": 3.0}))
    assert loaded.limits is not None
    assert loaded.limits.max_in_flight == 7
    assert loaded.settings.graceful_timeout == 3.0
    gateway = load_application(Application(None, "umbel.toml"))
    assert gateway.limits is None
    assert gateway.app.limits.max_in_flight == 7
