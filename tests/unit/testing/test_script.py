"""Scripts as values: how they are composed, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.testing import content, delay, fail, hang, json, sse, stream, text
from umbel.testing.script import Position, ScriptedResponse, as_script

ONE, TWO = json(1), json(2)


def test_a_script_gives_its_turns_in_order_and_repeats_the_last_one() -> None:
    position = Position(ONE.then(TWO))
    assert [position.take() for _ in range(4)] == [ONE.turns[0], TWO.turns[0], TWO.turns[0], TWO.turns[0]]


def test_a_turn_may_be_taken_ahead_of_others() -> None:
    three = json(3)
    position = Position(ONE.then(TWO).then(three).then(fail("reset")))
    assert position.coming(9) == fail("reset").turns[0]
    assert position.take(1) == TWO.turns[0]
    assert [position.coming(ahead) for ahead in range(3)] == [ONE.turns[0], three.turns[0], fail("reset").turns[0]]
    assert [position.take() for _ in range(4)] == [ONE.turns[0], three.turns[0], *fail("reset").times(2).turns]


def test_a_delay_takes_no_turn_and_adds_to_the_pause_of_what_follows() -> None:
    script = delay(0.25).then(delay(0.5).then(ONE)).then(delay(1)).then(TWO)
    assert [turn.pause for turn in script.turns] == [0.75, 1]
    assert script.turns[1].answer == TWO.turns[0].answer


def test_then_is_associative() -> None:
    parts = [delay(0.1), ONE, delay(0.2), delay(0.4), fail("reset"), TWO]
    left = parts[0]
    for part in parts[1:]:
        left = left.then(part)
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right = part.then(right)
    assert left == right


def test_times_repeats_a_script_with_its_delays() -> None:
    assert delay(1).then(ONE).times(2).then(TWO) == delay(1).then(ONE).then(delay(1)).then(ONE).then(TWO)


def test_a_script_is_not_changed_by_composing() -> None:
    first = fail("reset")
    first.then(ONE)
    assert first == fail("reset")


def test_header_fields_replace_the_media_type() -> None:
    answer = json({}, headers={"content-type": "application/problem+json"}).turns[0].answer
    assert isinstance(answer, ScriptedResponse)
    assert answer.fields == ((b"content-type", b"application/problem+json"),)


def test_a_field_may_occur_several_times() -> None:
    answer = json({}, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]).turns[0].answer
    assert isinstance(answer, ScriptedResponse)
    assert answer.fields[:2] == ((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"))


def test_events_are_written_line_by_line() -> None:
    answer = sse("one\ntwo", {"event": "x", "id": "7", "data": {"a": 1}}).turns[0].answer
    assert isinstance(answer, ScriptedResponse)
    assert answer.body == (b"data: one\ndata: two\n\n", b'event: x\nid: 7\ndata: {"a":1}\n\n')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fail("overflow"), "cannot cause 'overflow'"),
        (lambda: delay(-1), "from 0"),
        (lambda: delay(float("inf")), "hang"),
        (lambda: json({}, status=101), "no final status"),
        (lambda: json({}, headers={"x": "a\r\nb: c"}), "header field 'x' has a line break"),
        (lambda: ONE.times(0), "at least 1"),
        (lambda: stream(fail("reset"), b"x"), "only as its end"),
        (lambda: stream(b"x", fail("dns")), "only as its end"),
        (lambda: stream(text("x")), "only as its end"),
        (lambda: Position(delay(1)), "ends with an answer"),
        (lambda: Position(ONE.then(delay(1))), "ends with an answer"),
    ],
)
def test_what_cannot_be_done_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda value: delay(value), "such as delay\\(0.3\\), and '1s' is none"),
        (lambda value: json({}, status=value), "a status is a whole number, and '1s' is none"),
        (lambda value: content(value), "content\\(\\) takes bytes, and '1s' is none; for a text"),
        (lambda value: text(value.encode()), "text\\(\\) takes a text, and b'1s' is none; for bytes"),
        (lambda value: stream(b"x", iter(value)), "a stream has bytes, texts and delays, and <"),
        (lambda value: json({}, headers={"x": 1}), "must be str or bytes"),
    ],
)
def test_a_value_of_another_type_is_refused(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make("1s")


def test_what_is_no_answer_is_refused() -> None:
    value: Any = {"name": "Ada"}
    with pytest.raises(TypeError, match="neither a scripted answer"):
        as_script(value)


def test_hanging_is_a_timeout() -> None:
    assert hang() == fail("timeout")
