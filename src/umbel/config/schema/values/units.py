"""Values with units in files: durations (``"250ms"``), sizes (``"10MB"``), rates (``"1KB/s"``), ratios (``"20%"``).

In memory a duration is seconds (float), a size is bytes (int), a rate is bytes per second (int), and a ratio is a
number (float) above 0, where 1 is the whole.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
DURATION_S_MAX = 36_500 * 86_400.0
"""A hundred years: the clocks and timers of the system can represent any shorter time."""
SIZE_MAX = 2**63 - 1
"""The largest signed 64-bit integer, the type of sizes in the system."""
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(B|KB|MB|GB|KiB|MiB|GiB)")

_RATIO = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,15})?)%")


def parse_duration(value: object) -> float:
    """Return the seconds of a duration such as ``"250ms"``.

    Raises:
        ValueError: ``value`` is no text, has no unit, is not above zero, or is longer than ``DURATION_S_MAX``.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a duration; write a number and a unit, such as "250ms" or "2s"')
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds <= 0:
        raise ValueError("a duration must be above zero")
    if seconds > DURATION_S_MAX:
        raise ValueError(f"a duration must be at most {format_duration(DURATION_S_MAX)}")
    return seconds


def parse_delay(value: object) -> float:
    """Return the seconds of a duration that may be ``"0s"``.

    Raises:
        ValueError: ``value`` is no text, has no unit, or is longer than ``DURATION_S_MAX``.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return 0.0 if match is not None and not float(match[1]) else parse_duration(value)


def parse_rate(value: object) -> int:
    """Return the bytes per second of a rate such as ``"240B/s"``.

    Raises:
        ValueError: ``value`` is no size followed by ``/s``.
    """
    if isinstance(value, str) and value.endswith("/s"):
        try:
            return parse_size(value.removesuffix("/s"))
        except ValueError as error:
            raise ValueError(f'{_shown(value)} is not a rate; write a size per second, such as "240B/s"') from error
    raise ValueError(f'{_shown(value)} is not a rate; write a size per second, such as "240B/s" or "1KB/s"')


def parse_size(value: object) -> int:
    """Return the bytes of a size such as ``"10MB"`` (10,000,000) or ``"64KiB"`` (65,536), rounded to a whole number.

    Raises:
        ValueError: ``value`` is not a number directly followed by a unit (case matters), is less than a byte, or
            is more than ``SIZE_MAX``.
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a size; write a number and a unit, such as "64KiB" or "10MB"')
    size = round(float(match[1]) * _BYTES[match[2]])
    if size <= 0:
        raise ValueError("a size must be above zero")
    if size > SIZE_MAX:
        raise ValueError("a size must be below 2**63 bytes")
    return size


def parse_ratio(value: object) -> float:
    """Return the number of a ratio such as ``"20%"`` (0.2).

    Raises:
        ValueError: ``value`` is no text, has no percent sign, or is not above 0 % and at most 100 %.
    """
    match = _RATIO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a ratio; write a number and a percent sign, such as "20%"')
    ratio = float(match[1]) / 100
    if not 0 < ratio <= 1:
        raise ValueError("a ratio must be above 0% and at most 100%")
    return ratio


def parse_share(value: object) -> float:
    """Return the number of a share such as ``"5%"`` (0.05), which may be 0 %.

    Raises:
        ValueError: ``value`` is no text, has no percent sign, or is above 100 %.
    """
    match = _RATIO.fullmatch(value) if isinstance(value, str) else None
    if match is not None and float(match[1]) > 100:
        raise ValueError("a share must be at most 100%")
    return 0.0 if match is not None and not float(match[1]) else parse_ratio(value)


def parse_probability(value: object) -> float:
    """Return a probability, which is written as a number from 0 to 1 or as a share such as ``"5%"``.

    Raises:
        ValueError: ``value`` is neither.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return parse_share(value)
    if not 0 <= value <= 1:
        raise ValueError('a probability must be from 0 to 1; a share of a hundred has a percent sign, such as "5%"')
    return float(value)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value) if type(value) in (int, float) else "this"


def format_duration(seconds: float) -> str:
    """Format a duration in the largest unit that needs no fraction; the inverse of ``parse_duration``."""
    micros = round(seconds * 1e6)
    if not micros:
        return "0s"
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(_SECONDS[unit] * 1e6)
        if micros >= size and micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"


def format_size(count: int) -> str:
    """Format a size in the largest unit that needs no fraction; the inverse of ``parse_size``."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if count >= _BYTES[unit] and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return f"{count}B"


def format_rate(count: int) -> str:
    """Format a rate; the inverse of ``parse_rate``."""
    return f"{format_size(count)}/s"


def format_ratio(ratio: float) -> str:
    """Format a ratio; the inverse of ``parse_ratio``."""
    return f"{ratio * 100:.15g}%"


def _json_schema(title: str, pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "title": title, "pattern": f"^{pattern}$", "examples": [*examples]})


Duration = Annotated[float, BeforeValidator(parse_duration), _json_schema("duration", _DURATION.pattern, "250ms", "2s")]
Delay = Annotated[float, BeforeValidator(parse_delay), _json_schema("duration", _DURATION.pattern, "0s", "5s")]
Rate = Annotated[int, BeforeValidator(parse_rate), _json_schema("rate", f"{_SIZE.pattern}/s", "240B/s", "1KB/s")]
Size = Annotated[int, BeforeValidator(parse_size), _json_schema("size", _SIZE.pattern, "64KiB", "10MB")]
Ratio = Annotated[float, BeforeValidator(parse_ratio), _json_schema("ratio", _RATIO.pattern, "20%")]
Share = Annotated[float, BeforeValidator(parse_share), _json_schema("ratio", _RATIO.pattern, "5%", "0%")]
Probability = Annotated[
    float,
    BeforeValidator(parse_probability),
    WithJsonSchema(
        {
            "title": "probability",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": f"^{_RATIO.pattern}$", "examples": ["5%"]},
            ],
        }
    ),
]
