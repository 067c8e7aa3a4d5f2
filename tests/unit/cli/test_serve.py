"""``umbel serve``: errors before it serves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from tests.support.gateway.configs import CALL, ROUTE, write
from umbel import logs
from umbel.cli import main


def test_a_file_that_tls_can_no_longer_use_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file disappears after loading: only the creation of the TLS context finds that."""
    monkeypatch.chdir(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trustme.CA().cert_pem.bytes())
    write(tmp_path, '[upstreams.u]\nurls = ["https://h"]\n[upstreams.u.tls]\nca = "ca.pem"\n' + ROUTE + CALL)
    writable = logs.ensure_writable

    async def meanwhile(config: object) -> None:
        ca.unlink()
        await writable(config)

    monkeypatch.setattr(logs, "ensure_writable", meanwhile)
    result = CliRunner().invoke(main, ["serve", "--bind", "127.0.0.1:0"])
    assert (result.exit_code, result.stdout) == (78, "")
    (line,) = result.stderr.splitlines()
    assert line == f"umbel.toml:4: upstreams.u.tls.ca: {ca} cannot be read: no such file or directory"


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize("file", [".", "..", "/"])
def test_a_directory_as_the_configuration_is_one_line(command: str, file: str) -> None:
    result = CliRunner().invoke(main, [command, "-c", file])
    assert (result.exit_code, result.output) == (78, f"{file}: cannot be read: it is a directory\n")


GUARDED = """
from umbel import Umbel

app = Umbel.from_file("umbel.toml", __name__)


@app.before_request
async def login():
    return "who are you?", 401
"""


def test_a_login_hook_that_a_route_would_bypass_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    up, public = '[upstreams.u]\nurls = ["http://h"]\n', ROUTE.replace('"/r"', '"/public"') + 'auth = "none"\n' + CALL
    write(tmp_path, '[server]\nhooks = "python"\n' + up + public + ROUTE + CALL)
    (tmp_path / "guarded_by_a_login.py").write_text(GUARDED)
    result = CliRunner().invoke(main, ["serve", "guarded_by_a_login:app", "--bind", "127.0.0.1:0"])
    monkeypatch.delitem(sys.modules, "guarded_by_a_login")
    assert (result.exit_code, result.stdout) == (78, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith('umbel.toml:9: routes[1]: has no auth, and hooks = "python" skips the')
    assert "before_request function login" in line
