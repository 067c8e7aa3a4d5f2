"""The timeout that a client asks for in its request.

It can shorten the route's deadline and never lengthen it. A malformed value is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from werkzeug.http import parse_list_header

ENVOY_HEADER = "x-envoy-upstream-rq-timeout-ms"

_PREFER_CHARS_MAX = 1024
# Nine digits are 30 years in seconds. The bound is needed because int() of many digits is slow.
_WHOLE = re.compile(r"[0-9]{1,9}")


def client_timeout(headers: Mapping[str, str]) -> float | None:
    """The client's timeout in seconds; None if the client asks for none.

    Reads ``Prefer: wait=N`` (RFC 7240 section 4.3, seconds) and ``x-envoy-upstream-rq-timeout-ms``; the shorter one
    counts. Zero is ignored. Names in ``headers`` are in lower case.
    """
    if "prefer" not in headers and ENVOY_HEADER not in headers:
        return None
    timeouts = []
    if (prefer := headers.get("prefer")) and len(prefer) <= _PREFER_CHARS_MAX and (seconds := _wait(prefer)):
        timeouts.append(float(seconds))
    if (milliseconds := headers.get(ENVOY_HEADER)) and (whole := _whole(milliseconds)):
        timeouts.append(whole / 1000)
    return min(timeouts, default=None)


def _wait(prefer: str) -> int | None:
    for preference in parse_list_header(prefer):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            # The first of several preferences of one name counts (RFC 7240 section 2).
            return _whole(value.strip().strip('"'))
    return None


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text.strip()) else None
