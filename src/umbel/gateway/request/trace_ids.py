"""Request ids and trace contexts: those of the request if they are well formed, else new ones.

An id must be passed in only if the peer is trusted.
"""

from __future__ import annotations

import os
import re

from ...core.model import Trace

# Characters that are allowed in a log line, in a header field and in the URN of a problem document.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
# Version 00, or a later version, whose first four parts have the same format (Trace Context section 3.2.2).
_TRACEPARENT = re.compile(r"\A(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_MEMBER = re.compile(r"\A[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")
_STATE_MEMBERS_MAX = 32
_STATE_LENGTH_MAX = 512

_KNOWN_FLAGS = 0x03
"""The flags "sampled" and "random trace-id" (level 2). Unknown flags must be sent as zero."""
_SAMPLED, _NOT_SAMPLED = "01", "00"


def identify(claimed: str | None, parent: str | None, state: str | None, bound: str | None = None) -> tuple[str, Trace]:
    """The id and the trace of a request: ``request_id(claimed)`` and ``trace(parent, state, bound)``."""
    return request_id(claimed), trace(parent, state, bound)


def new_identity(bound: str | None = None) -> tuple[str, Trace]:
    """A new request id and a new trace; ``bound`` as in ``trace``."""
    both = _drawn()
    return both[:32], Trace(both[32:], "", _SAMPLED if bound is None or both[48:] < bound else _NOT_SAMPLED)


def request_id(claimed: str | None) -> str:
    """``claimed`` if it is well formed, else a new id of 32 hex digits."""
    if claimed is not None and _REQUEST_ID.fullmatch(claimed):
        return claimed
    return _drawn()[:32]


def trace(parent: str | None, state: str | None, bound: str | None = None) -> Trace:
    """The trace context of a request (https://www.w3.org/TR/trace-context/).

    If ``parent`` (traceparent) is missing or malformed, a new trace begins and ``state`` (tracestate) is dropped. If
    only ``state`` is malformed, only ``state`` is dropped.

    Args:
        bound: a new trace has the flag "sampled" if the last 16 digits of its id are less
            (``observe.traces.sampling.head_bound``). None: it has the flag, because all calls are recorded.
    """
    match = _TRACEPARENT.fullmatch(parent) if parent is not None else None
    if match is None or (match[1] == "00" and match[5] is not None):
        own = _drawn()[:32]
        return Trace(own, flags=_SAMPLED if bound is None or own[16:] < bound else _NOT_SAMPLED)
    flags = f"{int(match[4], 16) & _KNOWN_FLAGS:02x}"
    return Trace(match[2], match[3], flags, state if state is not None and _state_is_valid(state) else "")


_unused: list[str] = []
"""Random ids that are not used yet. A forked process must not use the same ones."""
os.register_at_fork(after_in_child=_unused.clear)


def _drawn() -> str:
    """64 random hex digits, for two ids. Random bytes are read in large blocks, because each read releases the GIL."""
    while True:
        try:
            return _unused.pop()
        except IndexError:
            digits = os.urandom(8192).hex()
            _unused.extend([digits[start : start + 64] for start in range(0, len(digits), 64)])


def _state_is_valid(state: str) -> bool:
    if len(state) > _STATE_LENGTH_MAX:
        return False
    # Empty members are allowed. Several field lines were joined with commas.
    members = [member.strip(" \t") for member in state.split(",")]
    return len(members) <= _STATE_MEMBERS_MAX and all(
        not member or _STATE_MEMBER.fullmatch(member) for member in members
    )
