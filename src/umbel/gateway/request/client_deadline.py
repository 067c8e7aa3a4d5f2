"""How much less time than the route's deadline the client asks for.

A malformed value counts for nothing, and no value can lengthen a deadline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from werkzeug.http import parse_list_header

ENVOY_HEADER = "x-envoy-upstream-rq-timeout-ms"

_PREFER_CHARS_MAX = 1024
# Nine digits are 30 years in seconds: more is a mistake, and int() of unbounded digits is slow.
_WHOLE = re.compile(r"[0-9]{1,9}")


def client_timeout(headers: Mapping[str, str]) -> float | None:
    """The seconds that the client is ready to wait, the least if it says so twice; None if it does not say.

    Reads ``Prefer: wait=N`` (RFC 7240 section 4.3, seconds) and Envoy's header (milliseconds). Zero counts for nothing.
    ``headers`` have lower-case names.
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
            # The first of several counts (RFC 7240 section 2).
            return _whole(value.strip().strip('"'))
    return None


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text.strip()) else None
