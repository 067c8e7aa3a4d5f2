"""Fixtures of the tests with third-party programs: two running servers, and commands with a timeout."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.server.raw_server_process import Served, serving_raw

HOSTS = ("127.0.0.1", "localhost", "gateway.test")


@dataclass(frozen=True, slots=True)
class Target:
    """The URLs of two running servers, one without and one with TLS, and the CA certificate of the second."""

    plain: str
    secure: str
    ca: Path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Two servers for the tests of a module. After them neither may have crashed or printed a traceback."""
    scratch = tmp_path_factory.mktemp("servers")
    authority = trustme.CA()
    issued = authority.issue_cert(*HOSTS)
    issued.cert_chain_pems[0].write_to_path(str(scratch / "server.pem"))
    issued.private_key_pem.write_to_path(str(scratch / "server.key"))
    authority.cert_pem.write_to_path(str(scratch / "ca.pem"))
    tls = f'certfile = "{scratch / "server.pem"}"\nkeyfile = "{scratch / "server.key"}"\n'
    with (
        serving_raw("umbel serve", scratch / "plain", hosts=HOSTS, sections="[compress]\n") as plain,
        serving_raw("umbel serve", scratch / "secure", hosts=HOSTS, settings=tls, sections="[compress]\n") as secure,
    ):
        yield Target(
            f"http://127.0.0.1:{plain.server.port}", f"https://localhost:{secure.server.port}", scratch / "ca.pem"
        )
        for served in (plain, secure):
            _check(served)


def _check(served: Served) -> None:
    assert served.server.lives
    assert "Traceback" not in served.server.output


def output(command: Sequence[str], *, seconds_max: float = 60.0) -> str:
    """Run a command to its end and return its stdout and stderr; the exit status is ignored.

    Raises:
        subprocess.TimeoutExpired: the command took longer than ``seconds_max``.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds_max, check=False,
        errors="replace",
    )  # fmt: skip
    return done.stdout
