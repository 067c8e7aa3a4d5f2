"""What a call sends on of the client's request as it came: header fields, query parameters and cookies."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import unquote_to_bytes

from ...core.http.forward_all import STAR, star_leaves_out

# What cannot stand in a request target (RFC 9112 section 3.2): anything but visible ASCII, and a fragment's sign.
_NEVER_IN_TARGET = re.compile(rb"[^!\"$-~]")


def forwarded_query(raw: bytes, names: Collection[str]) -> list[str]:
    """The parts of a raw query that ``names`` choose, in its order, each byte for byte; all of it for ``"*"``.

    A byte that cannot stand in a request target is percent-encoded.
    """
    if STAR in names:
        return [_text(raw)] if raw else []
    return [_text(pair) for name, pair in _pairs(raw) if name in names]


def query_sizes(raw: bytes, names: Collection[str]) -> Iterator[tuple[str, int]]:
    """The names that ``names`` choose of a raw query, and the bytes of each; one empty name for ``"*"``."""
    if STAR in names:
        yield "", len(raw)
        return
    sizes: dict[str, int] = {}
    for name, pair in _pairs(raw):
        if name in names:
            sizes[name] = sizes.get(name, 0) + len(pair)
    yield from sizes.items()


def _pairs(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Each parameter's name, decoded, and the whole of it as it stands."""
    for pair in raw.split(b"&"):
        name = pair.partition(b"=")[0]
        if b"%" in name or b"+" in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        yield name.decode("utf-8", "replace"), pair


def _text(raw: bytes) -> str:
    return _NEVER_IN_TARGET.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")


def forwarded_fields(headers: Mapping[str, str], but: str | None) -> Iterator[tuple[str, str]]:
    """The fields that ``"*"`` stands for; ``but`` is the name of one more that it leaves out."""
    for name, value in headers.items():
        if name != but and not star_leaves_out(name):
            yield name, value


def forwarded_cookies(
    headers: Mapping[str, str], cookies: Mapping[str, str], names: Collection[str], own: str = ""
) -> str:
    """The value of Cookie with the chosen cookies, each as it stands; as it came for ``"*"``. Empty without cookies.

    ``own`` are the cookies that the configuration sets itself. They go first, and none of the client's has the name of
    one of them.
    """
    if STAR not in names:
        chosen = [f"{name}={cookies[name]}" for name in names if name in cookies]
    elif own:
        chosen = [pair.strip(" \t") for pair in headers.get("cookie", "").split(";")]
    else:
        return headers.get("cookie", "")
    if own:
        taken = {_cookie_name(pair) for pair in own.split(";")}
        chosen = [own, *(pair for pair in chosen if _cookie_name(pair) not in taken | {""})]
    return "; ".join(chosen)


def _cookie_name(pair: str) -> str:
    return pair.partition("=")[0].strip(" \t")
