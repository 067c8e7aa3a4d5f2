"""The recorder: what a run keeps of bars and notes."""

from __future__ import annotations

import trio

from umbel.labs.kit import Recorder, in_words


def recorder(deadline: float = float("inf")) -> Recorder:
    return Recorder(__file__, lambda: 1.0, trio.Cancelled, str, trio.lowlevel.current_task, lambda: deadline)


def test_notes_of_one_line_and_moment_are_in_the_order_of_their_texts() -> None:
    recording = recorder()
    for text, line in (("c", 3), ("b", 3), ("a", 4), ("a", 3)):
        recording.note(text, line)
    assert [note.text for note in recording.run("trio", 2).notes] == ["b", "c", "a", "a"]


def test_the_members_of_a_group_are_in_the_order_of_their_words() -> None:
    group = ExceptionGroup("", [ValueError("b"), ExceptionGroup("", [ValueError("a")])])
    assert in_words(group) == "ExceptionGroup of ValueError: a, ValueError: b"
