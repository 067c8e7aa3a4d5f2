from __future__ import annotations

from pathlib import Path

import pytest

from umbel.errors import ConfigError
from umbel.server import hypercorn_config


def test_the_defaults_name_no_server_and_leave_requests_time_to_end() -> None:
    config = hypercorn_config()
    assert config.include_server_header is False
    assert config.graceful_timeout == 20
    assert config.accesslog is None
    assert config.bind == ["127.0.0.1:8000"]


def test_the_file_wins_over_the_defaults_and_options_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "hypercorn.toml"
    file.write_text('bind = ["127.0.0.1:1"]\ngraceful_timeout = 7\nworkers = 9\ncertfile = "tls/cert.pem"\n')
    config = hypercorn_config(file)
    assert (config.bind, config.graceful_timeout, config.workers) == (["127.0.0.1:1"], 7, 1)
    assert config.certfile == str(tmp_path / "tls/cert.pem")
    assert hypercorn_config(file, bind=["127.0.0.1:2", "unix:/run/x"]).bind == ["127.0.0.1:2", "unix:/run/x"]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"bind = ", "is not TOML"), (b"\xff", "is not UTF-8"), (None, "cannot be read")]
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "hypercorn.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as refused:
        hypercorn_config(file)
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)
