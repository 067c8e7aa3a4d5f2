"""The place of a running step: the innermost line of the program, not of a library that it calls."""

from __future__ import annotations

import json
import sys
from types import FrameType

import trio

from umbel.observe.lints.place import is_library, place_of_stack


def stack_within_json() -> FrameType:
    """The innermost frame while the library ``json`` runs."""
    frames: list[FrameType] = []

    def hook(pairs: object) -> None:
        frame = sys._getframe().f_back
        assert frame is not None
        frames.append(frame)

    json.loads('{"a": 1}', object_pairs_hook=hook)  # The line that calls the library.
    return frames[0]


def test_the_place_is_where_the_program_calls_a_library() -> None:
    frame = stack_within_json()
    assert is_library(frame.f_code.co_filename)
    place = place_of_stack(frame)
    assert place.startswith("lints/test_place.py:")
    assert place.endswith(" in stack_within_json")


async def test_frames_below_the_event_loop_are_not_looked_at() -> None:
    # All frames of this step are trio's; those below the loop, of the test's runner, are not its place.
    seen: list[str] = []

    def take() -> None:
        seen.append(place_of_stack(sys._getframe().f_back or sys._getframe()))

    trio.lowlevel.current_trio_token().run_sync_soon(take)
    await trio.sleep(0.01)
    assert "test_place" not in seen[0]
    assert "/_run.py:" in seen[0] or "_entry_queue.py:" in seen[0]


def test_files_of_python_and_packages_are_libraries_those_of_a_program_not() -> None:
    assert is_library(json.__file__)
    assert is_library(trio.__file__)
    assert is_library("<frozen importlib._bootstrap>")
    assert not is_library(__file__)
    assert not is_library("/srv/shop/app.py")
