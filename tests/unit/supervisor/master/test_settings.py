"""The master's settings from umbel.toml, hypercorn.toml and the command line."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest
import trio
import trustme

from tests.support.gateway.configs import write
from umbel.core.errors import ConfigError
from umbel.supervisor.master.options import Application, Options
from umbel.supervisor.master.settings import READ_S_MAX, CommandLine, read_in_time, read_settings

FILES = {"hypercorn.toml": 'graceful_timeout = 7\npid_path = "master.pid"\nmax_requests = 5\n'}


def given(directory: Path, **options: object) -> CommandLine:
    application = Application(None, str(directory / "umbel.toml"), str(directory / "hypercorn.toml"))
    return CommandLine(2, application, ["127.0.0.1:0"], options, allow_empty=True)


def test_settings_come_from_both_files_with_paths_relative_to_them(tmp_path: Path) -> None:
    text = (
        '[server]\ndrain_delay = "1s"\n[supervisor]\nhang_timeout = "3s"\nmax_rss = "1GB"\n'
        'intensity = { restarts = 5 }\non_intensity = "exit"\n'
    )
    write(tmp_path, text, FILES)

    settings = read_settings(given(tmp_path))

    assert settings.options == Options(
        hang_timeout=3.0,
        max_rss=10**9,
        intensity_restarts=5,
        on_intensity="exit",
        graceful_timeout=7.0,
        drain_delay=1.0,
        pidfile=str(tmp_path / "master.pid"),
    )
    assert settings.limits is not None
    assert settings.limits.drain_delay == 1.0
    assert settings.logs is not None
    assert settings.logs.dir == str(tmp_path / "logs")


def test_without_files_all_settings_have_defaults(tmp_path: Path) -> None:
    settings = read_settings(CommandLine(1, Application("served:app")))
    assert settings.options == Options()
    assert settings.logs is None
    assert settings.limits is None


def test_the_command_line_takes_precedence(tmp_path: Path) -> None:
    write(tmp_path, '[supervisor]\nhang_timeout = "3s"\n', FILES)
    assert read_settings(given(tmp_path, hang_timeout=4.0)).options.hang_timeout == 4.0
    application = Application(None, str(tmp_path / "umbel.toml"), None, {"graceful_timeout": 2.0})
    assert read_settings(CommandLine(1, application, allow_empty=True)).options.graceful_timeout == 2.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('hang_timeout = "0s"', "umbel.toml:2: supervisor.hang_timeout: a duration must be above zero"),
        ("intensity = { restarts = 0 }", "umbel.toml:2: supervisor.intensity.restarts: "),
        ('on_intensity = "panic"', "umbel.toml:2: supervisor.on_intensity: "),
        ("workers = 4", "umbel.toml:2: supervisor.workers: "),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, f"[supervisor]\n{line}\n", FILES)
    with pytest.raises(ConfigError) as caught:
        read_settings(given(tmp_path))
    assert said in str(caught.value)


def test_the_heartbeat_interval_is_at_most_a_fifth_of_hang_timeout() -> None:
    assert Options().heartbeat_every == 1.0
    assert Options(hang_timeout=1.0).heartbeat_every == 0.2


async def test_reading_that_hangs_is_a_configuration_error_and_holds_one_thread(
    autojump_clock: trio.testing.MockClock,
) -> None:
    released = threading.Event()
    begun: list[int] = []

    def hangs() -> int:
        begun.append(1)
        released.wait(600)
        return 1

    autojump_clock.autojump_threshold = 0.01
    try:
        for _ in range(3):
            began = trio.current_time()
            with pytest.raises(ConfigError, match="was not read within 60 s"):
                await read_in_time(hangs)
            assert trio.current_time() - began == READ_S_MAX
        assert len(begun) == 1
    finally:
        released.set()
    autojump_clock.autojump_threshold = math.inf
    with trio.fail_after(10):
        assert await read_in_time(lambda: 2) == 2


@pytest.mark.parametrize("key", ["ca_certs", "certfile", "keyfile"])
@pytest.mark.parametrize("password", ["", 'keyfile_password = "x"\n'], ids=["plain", "encrypted"])
def test_a_pipe_in_the_place_of_a_certificate_is_refused_without_waiting(
    key: str, password: str, tmp_path: Path
) -> None:
    pem = trustme.CA().issue_cert("h").private_key_and_cert_chain_pem
    pem.write_to_path(str(tmp_path / "good.pem"))
    os.mkfifo(tmp_path / "pipe")
    files = {"certfile": "good.pem", "keyfile": "good.pem", key: "pipe"}
    text = password + "".join(f'{name} = "{file}"\n' for name, file in files.items())
    write(tmp_path, "", {"hypercorn.toml": text})
    with pytest.raises(ConfigError) as caught:
        read_settings(given(tmp_path))
    (problem,) = caught.value.problems
    assert (problem.key, problem.reason) == (
        key,
        "the file cannot be read: it is a named pipe, not a regular file",
    )
