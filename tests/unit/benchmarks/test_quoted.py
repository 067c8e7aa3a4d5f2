"""The READMEs quote what the bench has printed, line by line, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]


def _quoted(readme: str) -> list[str]:
    text = (PROJECT / readme).read_text(encoding="utf-8")
    return text.partition("<!-- bars: begin -->\n")[2].partition("<!-- bars: end -->")[0].splitlines()


def test_the_readme_quotes_the_bars_as_they_were_printed() -> None:
    printed = (PROJECT / "benchmarks" / "results.md").read_text(encoding="utf-8").splitlines()
    table = _quoted("README.md")
    assert table
    begin = printed.index(table[0])
    assert table == printed[begin : begin + len(table)]
    assert not printed[begin + len(table)].startswith("|"), "no bar is left out"


def test_the_chinese_readme_quotes_the_same_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    from results import CHINESE, ENGLISH

    english, chinese = _quoted("README.md"), _quoted("README.zh-CN.md")
    verdicts = dict(zip(ENGLISH[1:], CHINESE[1:], strict=True))
    for row, translated in zip(english[2:], chinese[2:], strict=True):
        figures, _, verdict = row.removesuffix(" |").rpartition(" | ")
        assert translated == f"{figures} | {verdicts[verdict]} |"
