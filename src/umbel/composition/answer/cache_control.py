"""Cache-Control of an answer, computed from the configuration and from the responses that the answer is made of. Pure.

The parts of an answer are the responses of its calls, or of the items of an ``each``. The answer gets the most
restrictive of their directives. A configured ``cache_control`` replaces these directives, with two exceptions: a part
is ``private`` or ``no-store``, or the answer sets a cookie, which is for one client (RFC 9111 section 7.3). Shared
caches must never store such an answer, whatever is configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Fields = Sequence[tuple[str, str]]

# One directive; a comma may stand within quotes.
_DIRECTIVE = re.compile(r'(?:[^,"]|"[^"]*+"|")++')
_FOR_SHARED = frozenset({"public", "s-maxage"})
_TARGETED = (b"cdn-cache-control", b"surrogate-control", b"edge-control", b"x-accel-expires")
"""Ends of the fields that some shared caches obey instead of Cache-Control: that of RFC 9213, and older ones."""


def answer_cache_control(
    configured: str | None, parts: Sequence[Fields], fields: Fields, *, personal: bool, complete: bool
) -> tuple[str | None, Fields]:
    """Compute the Cache-Control of an answer.

    Args:
        configured: the configured value; None: it is computed from the parts.
        parts: the header fields of the parts.
        fields: the other header fields of the answer.
        personal: whether the answer is for one client. Has no effect if ``configured`` is given.
        complete: whether nothing is missing from the answer. An incomplete answer must not be stored (``no-store``).

    Returns:
        The value of Cache-Control (None: no such field), and ``fields``. If no shared cache may store the answer, the
        fields that some shared caches obey instead of Cache-Control (CDN-Cache-Control, for example) are removed.
    """
    if complete and not fields and not any(parts):
        return cache_control_without_parts(configured, personal=personal), fields
    sets_cookie = bool(fields) and any(name == "set-cookie" for name, _ in fields)
    named = {name for part in parts if part for name in _directives(part)} if any(parts) else ()
    for_one_client = sets_cookie or "private" in named or "no-store" in named
    if not complete or "no-store" in named:
        value: str | None = "no-store"
    elif configured is None:
        value = strictest_cache_control(parts, private=personal or sets_cookie)
    else:
        value = to_private(configured) if for_one_client else configured
    if fields and value is not None and forbids_shared(value):
        fields = tuple(field for field in fields if not is_targeted(field[0].encode("ascii", "replace")))
    return value, fields


def cache_control_without_parts(configured: str | None, *, personal: bool) -> str | None:
    """The Cache-Control of a complete answer without other header fields, if no part has a directive; None: none."""
    return configured if configured is not None or not personal else "private"


def to_private(cache_control: str) -> str:
    """Make a Cache-Control private: remove the directives for shared caches, and add ``private``.

    ``private`` is not added to a value that has it already, or has ``no-store``.
    """
    kept = [
        directive
        for directive in _split(cache_control)
        if _name(directive) not in _FOR_SHARED and not (_name(directive) == "private" and "=" in directive)
    ]
    if not {"private", "no-store"}.isdisjoint(map(_name, kept)):
        return ", ".join(kept)
    return ", ".join(["private", *kept])


def allows_shared(cache_control: str) -> bool:
    """Whether a Cache-Control explicitly allows shared caches to store the answer."""
    return not _FOR_SHARED.isdisjoint(map(_name, _split(cache_control)))


def is_targeted(name: bytes) -> bool:
    """Whether some shared caches obey the field of this name, in lower case, instead of Cache-Control."""
    return name.endswith(_TARGETED)


def forbids_shared(cache_control: str) -> bool:
    """Whether a Cache-Control forbids shared caches to store the answer."""
    return not {"private", "no-store"}.isdisjoint(map(_name, _split(cache_control)))


def names_shared_age(cache_control: str) -> bool:
    """Whether a Cache-Control has s-maxage, which only shared caches obey."""
    return "s-maxage" in map(_name, _split(cache_control))


def _split(cache_control: str) -> list[str]:
    return [directive.strip(" \t") for directive in _DIRECTIVE.findall(cache_control) if directive.strip(" \t")]


def _name(directive: str) -> str:
    return directive.partition("=")[0].strip(" \t").lower()


# The directives that the answer gets if any part has them (RFC 9111 section 5.2.2).
_FLAGS = ("no-cache", "private", "must-revalidate", "proxy-revalidate", "no-transform", "must-understand")


def strictest_cache_control(parts: Iterable[Fields], *, private: bool = False) -> str | None:
    """The most restrictive Cache-Control of the header fields of several parts; None: no part has a directive.

    The answer has a lifetime only if every part has one. It is the shortest of the remaining lifetimes, which are
    max-age minus Age (RFC 9111 section 4.2).

    Args:
        private: the answer is private also if no part is.
    """
    parts = [*parts]
    if not private and not any(parts):
        return None  # The usual case.
    directives = [_directives(fields) for fields in parts]
    if not any(directives) and not private:
        return None
    named = {name for part in directives for name in part}
    if "no-store" in named:
        return "no-store"
    flags = [flag for flag in _FLAGS if flag in named or (flag == "private" and private)]
    lifetimes = [part.get("max-age") for part in directives]
    shared = [part.get("s-maxage", part.get("max-age")) for part in directives]
    result = list(flags)
    if directives and all(value is not None for value in lifetimes):
        result.append(f"max-age={min(value for value in lifetimes if value is not None)}")
    elif any(directives) and "no-cache" not in flags:
        # A part without a lifetime may change at any time, so caches must revalidate the answer before each use.
        result.insert(0, "no-cache")
    if "private" not in result and "no-cache" not in result:
        if any("s-maxage" in part for part in directives) and all(value is not None for value in shared):
            result.append(f"s-maxage={min(value for value in shared if value is not None)}")
        if directives and all("public" in part for part in directives):
            result.insert(0, "public")
    return ", ".join(result) or None


def _directives(fields: Fields) -> dict[str, int | None]:
    """The directives of a part by name, with the remaining seconds of max-age and s-maxage as value, else None."""
    found: dict[str, int | None] = {}
    age = 0
    for name, value in fields:
        if name == "age":
            age = _seconds(value)
        elif name == "vary":
            if "*" in value:
                # The response may differ for any other request (RFC 9110 section 12.5.5).
                found["no-cache"] = None
        elif name == "cache-control":
            for directive in value.split(","):
                key, mark, argument = directive.strip().partition("=")
                key = key.strip().lower()
                if key in ("max-age", "s-maxage"):
                    found[key] = _seconds(argument) if mark else 0
                elif key:
                    found[key] = None
    return {key: max(0, value - age) if value is not None else None for key, value in found.items()}


_SECONDS_MAX = 2**31


def _seconds(text: str) -> int:
    """The value of a delta-seconds argument, at most 2**31; 0 if the text is no number (RFC 9111 section 1.2.2)."""
    text = text.strip().strip('"').lstrip("0") or "0"
    if not (text.isascii() and text.isdigit()):
        return 0
    # int() takes quadratic time, and refuses more than 4300 digits.
    return min(int(text), _SECONDS_MAX) if len(text) <= len(str(_SECONDS_MAX)) else _SECONDS_MAX
