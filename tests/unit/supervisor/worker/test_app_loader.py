"""Loading an application by ``module:app``, or the gateway of a configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from umbel.config.schema.sections import Config
from umbel.supervisor.worker.app_loader import AppImportError, import_app, load_app

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


def test_a_configuration_that_is_loaded_already_is_not_read_again(tmp_path: Path) -> None:
    route = {"path": "/hello", "respond": {"text": "hello"}}
    config = Config.model_validate({"routes": [route]})
    assert load_app(None, str(tmp_path / "gone.toml"), 1, loaded=config).gateway_config is config


@pytest.mark.parametrize(("path", "name"), [("", "app"), (":app", "app"), (":make()", "app"), (":inner.app", "app")])
def test_an_application_is_imported_by_its_name(module: str, path: str, name: str) -> None:
    assert import_app(module + path).__name__ == name


@pytest.mark.parametrize(
    ("path", "said"), [(":nothing", "has no nothing"), (":inner.nothing", "has no"), (":number", "cannot be called")]
)
def test_a_missing_or_invalid_application_is_reported_in_one_sentence(module: str, path: str, said: str) -> None:
    with pytest.raises(AppImportError, match=said):
        import_app(module + path)


def test_without_a_name_the_gateway_of_the_configuration_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("[server]\nmax_in_flight = 7\n")
    assert load_app(None, str(tmp_path / "umbel.toml")).limits.max_in_flight == 7


def test_a_worker_of_another_application_loads_no_gateway_no_upstreams_and_no_schema() -> None:
    code = "import sys, umbel.supervisor.worker.worker; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"quart", "pydantic", "umbel.config.schema.sections", "umbel.upstream.pool.pool"} & set(loaded)


@pytest.mark.parametrize(
    "spec", ["nothing_there:app", "json.nothing:app", "json.decoder.nothing", ":", ".x:app", "a b:c"]
)
def test_a_missing_module_is_named_in_the_error(spec: str) -> None:
    with pytest.raises(AppImportError, match="there is no module") as caught:
        import_app(spec)
    assert str(caught.value).startswith(f'"{spec}": ')


def test_a_missing_import_of_the_application_is_reported_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app_that_misses_one.py").write_text("import nothing_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_there"):
        import_app("app_that_misses_one:app")
