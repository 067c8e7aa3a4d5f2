"""``tools/picture.py``: which request is shown, what is said without a browser, and the file in docs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tools import browser, picture

PROJECT = Path(__file__).parents[2]


def attempt(cause: str, outcome: str = "ok", reason: str = "", *, critical: bool = False) -> dict[str, Any]:
    return {"cause": cause, "outcome": outcome, "reason": reason, "critical": critical}


def timeline(*attempts: dict[str, Any], outcome: str = "complete") -> dict[str, Any]:
    return {"outcome": outcome, "calls": [{"attempts": attempts}, {"attempts": []}, {"attempts": []}]}


LOST = attempt("first", "cancelled", "lost-hedge")
WON = attempt("hedge", critical=True)


def test_a_complete_answer_that_waited_for_a_hedge_is_chosen() -> None:
    wanted = timeline(LOST, WON)
    others = [
        timeline(attempt("first", critical=True)),
        timeline(attempt("first", critical=True), attempt("hedge", "cancelled", "lost-hedge")),
        timeline(LOST, WON, outcome="partial"),
        timeline(LOST, attempt("hedge")),
    ]
    assert picture.hedged([*others, wanted]) is wanted
    assert picture.hedged(others) is None


def test_without_a_browser_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "program", lambda name: None)
    assert picture.main() == 1
    said = capsys.readouterr().err
    assert "Chromium is not installed" in said
    assert "apt-get install chromium" in said


def test_the_picture_in_docs_is_within_its_bounds() -> None:
    content = picture.PICTURE.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) <= picture.BYTES_MAX
    width, _ = struct.unpack(">II", content[16:24])
    assert width == picture.WIDTH * picture.SCALE


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_the_picture_by_an_address_for_the_package_index(name: str) -> None:
    [address] = [
        part.partition(")")[0] for part in (PROJECT / name).read_text(encoding="utf-8").split("](") if ".png" in part
    ]
    assert address.startswith("https://")
    assert address.endswith(f"/raw/main/{picture.PICTURE.relative_to(PROJECT)}")
