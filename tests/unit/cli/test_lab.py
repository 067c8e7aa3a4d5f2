"""``umbel lab``: the list, the question, the forms of output, and mistakes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.unit.labs.runs import runs
from umbel.cli import main
from umbel.labs import run
from umbel.labs.model import PACKAGES, Lab, Run, lab_of


async def _recorded(lab: Lab) -> dict[str, Run]:
    return runs()


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_lab", _recorded)


def lab(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["lab", *arguments])


def test_the_labs_are_listed_with_number_title_and_phenomenon() -> None:
    listed = lab()
    assert listed.exit_code == 0
    assert "  1  Who is still running?" in listed.output
    assert len([line for line in listed.output.splitlines() if line[:3].strip().isdigit()]) == len(PACKAGES)
    assert [each["number"] for each in json.loads(lab("--json").output)] == list(PACKAGES)


def test_without_a_terminal_the_question_is_printed_and_nothing_is_asked() -> None:
    told = lab("1").output
    assert told.index("Question: ") < told.index("asyncio.gather\n") < told.index("Answer") < told.index("Why")
    assert "Your answer" not in told


@pytest.mark.parametrize(
    ("given", "said"),
    [("c", "Right."), ("A", "Wrong. The answer is: 5. See why:"), ("", ""), ("5\nc", "Error: '5' is not one of")],
)
def test_on_a_terminal_the_answer_is_a_letter(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.cli.lab._is_terminal", lambda: True)
    told = CliRunner().invoke(main, ["lab", "1"], input=f"{given}\n")
    assert told.exit_code == 0
    assert "  a  0\n  b  1\n  c  5\n" in told.output
    assert said in told.output
    assert ("Right." in told.output) == (given[-1:] == "c")


def test_no_question_leaves_the_question_out() -> None:
    assert "Question: " not in lab("1", "--no-question").output


def test_source_prints_the_programs() -> None:
    assert "async with trio.open_nursery() as nursery:" in lab("1", "--source").output


def test_json_is_the_only_output() -> None:
    assert json.loads(lab("1", "--json").output)["title"] == lab_of(1).title


def test_html_is_written_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.html"
    assert lab("1", "--html", str(path)).output == f"Written: {path}\n"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("99",), "There is no lab 99; the labs are 1"),
        (("--html", "x"), "Say which lab: umbel lab NUMBER."),
        (("0",), "0 is not in the range"),
        (("1", "--serve"), "--serve goes with --port only"),
        (("1", "--port", "9700"), "--port has an effect only with --serve"),
    ],
)
def test_a_wrong_use_is_an_error_in_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = lab(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    result = lab("1", "--html", str(tmp_path / "no" / "lab.html"))
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory." in result.output


def test_a_program_that_crashes_is_an_error_with_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crashes(lab: Lab) -> dict[str, Run]:
        raise run.LabError("Lab 1, trio nursery: the program has crashed:\nValueError")

    monkeypatch.setattr(run, "run_lab", crashes)
    result = lab("1")
    assert result.exit_code == 1
    assert result.output.endswith("Error: Lab 1, trio nursery: the program has crashed:\nValueError\n")


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = lab("--serve", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "Error: cannot listen on 127.0.0.1:" in result.output
