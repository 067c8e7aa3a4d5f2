"""The private names of Hypercorn that the guard replaces or leans on: one test each, which fails when its code changes.

If one fails, read what is new upstream, see what of it the guard must keep, mend, and only then write the new hash.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version
from typing import Any

import pytest
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol import events
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.run import worker_serve
from hypercorn.trio.worker_context import WorkerContext

from umbel.server import guard

REPLACED: dict[str, tuple[Any, str]] = {
    # Whole, by connection.py: the handshake, the reading, the idle task, the writing.
    "TCPServer.run": (guard._unguarded, "562ad263532dc439"),
    # By h2.py, h2stream.py and h2sender.py, in whose place it is no longer made.
    "H2Protocol": (H2Protocol, "125b442377bbd950"),
    "StreamBuffer": (StreamBuffer, "73e21458c84e9fe3"),
}
LEANT_ON: dict[str, tuple[Any, str]] = {
    # Called with objects of ours, and for the messages that it makes.
    "HTTPStream": (HTTPStream, "b965cebbb2eef878"),
    "events": (events, "6c979e49258dbed1"),
    "ASGIWrapper": (ASGIWrapper, "d8075a05639f214d"),
    "WorkerContext": (WorkerContext, "f4ada2d519fb01ff"),
    # The nursery that connections live in, and when it is cancelled.
    "worker_serve": (worker_serve, "1c719b91c4950cf1"),
    "Config.response_headers": (Config.response_headers, "68db1e90e81fd14c"),
}


def digest(code: Any) -> str:
    """Of the source without white space, so that reformatting is no alarm."""
    return hashlib.sha256("".join(inspect.getsource(code).split()).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", REPLACED)
def test_the_code_that_is_replaced_is_what_the_guard_was_written_against(name: str) -> None:
    code, expected = REPLACED[name]
    assert digest(code) == expected


@pytest.mark.parametrize("name", LEANT_ON)
def test_the_code_that_is_leant_on_is_what_the_guard_was_written_against(name: str) -> None:
    code, expected = LEANT_ON[name]
    assert digest(code) == expected


def test_hypercorn_is_pinned_to_the_version_whose_code_was_read() -> None:
    assert version("hypercorn").startswith("0.18.")
