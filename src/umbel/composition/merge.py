"""How the parts' caching rules become the answer's: the most restrictive of them.

The parts are the items of an ``each``, or the calls of an answer. It is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Fields = Sequence[tuple[str, str]]

# From the strictest down; of these the first that any part says is said of the whole (RFC 9111 section 5.2.2).
_FLAGS = ("no-cache", "private", "must-revalidate", "proxy-revalidate", "no-transform", "must-understand")


def strictest_cache_control(parts: Iterable[Fields], *, private: bool = False) -> str | None:
    """The Cache-Control of an answer made of these parts' header fields; None where no part says anything.

    A lifetime holds only if every part states one; it is the shortest, less the age that its part came with
    (RFC 9111 section 4.2). ``private`` keeps shared caches from storing whatever the parts say.
    """
    parts = [*parts]
    if not private and not any(parts):
        return None  # As most: nobody says anything of caching, or of anything that is looked at.
    directives = [_directives(fields) for fields in parts]
    if not any(directives) and not private:
        return None
    said = {name for part in directives for name in part}
    if "no-store" in said:
        return "no-store"
    flags = [flag for flag in _FLAGS if flag in said or (flag == "private" and private)]
    lifetimes = [part.get("max-age") for part in directives]
    shared = [part.get("s-maxage", part.get("max-age")) for part in directives]
    result = list(flags)
    if directives and all(value is not None for value in lifetimes):
        result.append(f"max-age={min(value for value in lifetimes if value is not None)}")
    elif any(directives) and "no-cache" not in flags:
        # Some part gives no lifetime, so nobody may take the answer for fresh without asking.
        result.insert(0, "no-cache")
    if "private" not in result and "no-cache" not in result:
        if any("s-maxage" in part for part in directives) and all(value is not None for value in shared):
            result.append(f"s-maxage={min(value for value in shared if value is not None)}")
        if directives and all("public" in part for part in directives):
            result.insert(0, "public")
    return ", ".join(result) or None


def _directives(fields: Fields) -> dict[str, int | None]:
    """A part's directives; the value of a lifetime is what is left of it, of any other None."""
    found: dict[str, int | None] = {}
    age = 0
    for name, value in fields:
        if name == "age":
            age = _seconds(value)
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
    """A delta-seconds argument, at most 2**31; what is no number counts as stale (RFC 9111 section 1.2.2)."""
    text = text.strip().strip('"').lstrip("0") or "0"
    if not (text.isascii() and text.isdigit()):
        return 0
    # int() of unbounded digits is slow, and from 4301 on an error.
    return min(int(text), _SECONDS_MAX) if len(text) <= len(str(_SECONDS_MAX)) else _SECONDS_MAX
