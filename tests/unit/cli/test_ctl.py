"""``umbel ctl`` without a master: one sentence, in a bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from umbel.cli import main


@contextmanager
def answering(path: Path, *pieces: bytes, pause: float = 0.0) -> Iterator[None]:
    """Answer one connection at ``path`` with the pieces."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            sock, _ = listener.accept()
            with sock, suppress(OSError):
                sock.recv(4096)
                for piece in pieces:
                    sock.sendall(piece)
                    time.sleep(pause)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not that of a master of this version (the answer is not JSON)"),
        (b"[" * 100_000, "is not that of a master of this version (the answer is not JSON)"),
        (b"\xff\xfe\n", "is not that of a master of this version (the answer is not JSON)"),
        (b"[1]\n", 'is not that of a master of this version (the answer has no "ok")'),
        (b'{"ok": "yes"}\n', 'is not that of a master of this version (the answer has no "ok")'),
        (b'{"ok": true}\n', "the answer lacks fields, so the master may be of another version"),
        (b'{"ok": true, "master": [], "slots": 3}\n', "the answer lacks fields"),
        (b"", "no master answers at"),
    ],
    ids=["HTTP", "deep", "bytes", "list", "text", "empty", "other types", "nothing"],
)
def test_an_answer_that_is_not_a_masters_is_one_sentence(answer: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "ctl.sock"
    with answering(path, answer):
        result = CliRunner().invoke(main, ["ctl", "status", "--control", str(path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert sentence in result.output
    assert result.output.count("\n") == 1


def test_a_slow_answer_is_cut_off_at_the_limit_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.cli.ctl._ANSWER_S", 0.2)
    path = tmp_path / "ctl.sock"
    with answering(path, *[b" "] * 20, pause=0.05):
        began = time.monotonic()
        result = CliRunner().invoke(main, ["ctl", "status", "--control", str(path)])
        assert time.monotonic() - began < 0.8
    assert (result.exit_code, "does not answer: no complete answer within 0.2 s" in result.output) == (1, True)
