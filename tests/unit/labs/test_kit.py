"""The recorder: what a run keeps of bars and notes."""

from __future__ import annotations

import trio

from umbel.labs.kit import Recorder, in_words
from umbel.labs.model import Deadline


class Clock:
    now = 1.0


def recorder(clock: Clock | None = None) -> Recorder:
    time = clock or Clock()
    return Recorder(__file__, lambda: time.now, trio.Cancelled, str, trio.lowlevel.current_task, lambda: float("inf"))


def test_notes_of_one_line_and_moment_are_in_the_order_of_their_texts() -> None:
    recording = recorder()
    for text, line in (("c", 3), ("b", 3), ("a", 4), ("a", 3)):
        recording.note(text, line)
    assert [note.text for note in recording.run("trio", 2).notes] == ["b", "c", "a", "a"]


def test_the_members_of_a_group_are_in_the_order_of_their_words() -> None:
    group = ExceptionGroup("", [ValueError("b"), ExceptionGroup("", [ValueError("a")])])
    assert in_words(group) == "ExceptionGroup of ValueError: a, ValueError: b"


def test_a_deadline_is_gone_when_all_that_had_it_have_ended() -> None:
    clock = Clock()
    recording = recorder(clock)
    first, second = recording.hold(5), recording.hold(5)
    clock.now = 2
    recording.release(first)
    assert recording.run("trio", 9).deadlines == [Deadline(1, 5, None)]
    clock.now = 3
    recording.release(second)
    assert recording.run("trio", 9).deadlines == [Deadline(1, 5, 3)]


def test_a_deadline_has_passed_unless_it_was_gone_before() -> None:
    assert Deadline(0, 2, 2).passed
    assert Deadline(0, 2, None).passed
    assert not Deadline(0, 2, 1.9).passed
