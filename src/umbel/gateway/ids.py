"""Request ids and trace contexts: taken over where they are well formed (an id: from a trusted peer), else made new.

Called by ``connection.py`` once per request. Knows no peer and no policy: whoever calls says what may be believed.
"""

from __future__ import annotations

import re
from secrets import token_hex

from ..model import Trace

# What fits a log line, a header and the URN of a problem document alike.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
# Version 00, or a later one, whose first four fields read the same (Trace Context section 3.2.2).
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")
_STATE_MEMBERS_MAX = 32
_STATE_LENGTH_MAX = 512

_KNOWN_FLAGS = 0x03
"""Sampled, and random trace-id (level 2). Unknown flags must be zero in what we send."""
_SAMPLED = "01"


def identify(claimed: str | None, parent: str | None, state: str | None) -> tuple[str, Trace]:
    """The id and the trace of a request: ``request_id`` and ``trace`` in one."""
    if claimed is None and parent is None:
        # Nearly every request that comes from outside. One draw from the system costs half of two.
        drawn = token_hex(32)
        return drawn[:32], Trace(drawn[32:], flags=_SAMPLED)
    return request_id(claimed), trace(parent, state)


def request_id(claimed: str | None) -> str:
    """``claimed`` if it is well formed, else a new id of 32 hex digits."""
    if claimed is not None and _REQUEST_ID.fullmatch(claimed):
        return claimed
    return token_hex(16)


def trace(parent: str | None, state: str | None) -> Trace:
    """The trace that a request runs under (https://www.w3.org/TR/trace-context/).

    A malformed ``parent`` begins a new trace, and its ``state`` goes with it; a malformed ``state`` is dropped alone.
    A trace that begins here says "sampled", for our records do hold each of its calls.
    """
    match = _TRACEPARENT.fullmatch(parent) if parent is not None else None
    if match is None or (match[1] == "00" and match[5] is not None):
        return Trace(token_hex(16), flags=_SAMPLED)
    flags = f"{int(match[4], 16) & _KNOWN_FLAGS:02x}"
    return Trace(match[2], match[3], flags, state if state is not None and _state_is_valid(state) else "")


def _state_is_valid(state: str) -> bool:
    if len(state) > _STATE_LENGTH_MAX:
        return False
    # Empty members are allowed, and a field sent in several lines arrives joined by commas.
    members = [member.strip(" \t") for member in state.split(",")]
    return len(members) <= _STATE_MEMBERS_MAX and all(
        not member or _STATE_MEMBER.fullmatch(member) for member in members
    )
