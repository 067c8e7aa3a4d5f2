"""Forwarding: the client's header fields, query parameters and cookies that a call sends unchanged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from urllib.parse import unquote_to_bytes

from ...core.http.forward_all import STAR, star_leaves_out
from ...core.http.syntax import NOT_OF_TARGET


def forwarded_query(raw: bytes, names: Collection[str]) -> list[str]:
    """The parameters of a raw query whose decoded names are among ``names``, in the order of the query.

    For ``"*"`` the whole query is one element (an empty query: none). Each is given as the client wrote it, except that
    a byte that no request target may hold is percent-encoded.
    """
    if STAR in names:
        return [_text(raw)] if raw else []
    return [_text(pair) for name, pair in _pairs(raw) if name in names]


def query_sizes(raw: bytes, names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield the name and the total bytes of each parameter with one of these names; for ``"*"`` an empty name."""
    if STAR in names:
        yield "", len(raw)
        return
    sizes: dict[str, int] = {}
    for name, pair in _pairs(raw):
        if name in names:
            sizes[name] = sizes.get(name, 0) + len(pair)
    yield from sizes.items()


def _pairs(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each parameter of a raw query: the decoded name, and the raw bytes with name and value."""
    for pair in raw.split(b"&"):
        name = pair.partition(b"=")[0]
        if b"%" in name or b"+" in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        yield name.decode("utf-8", "replace"), pair


def _text(raw: bytes) -> str:
    return NOT_OF_TARGET.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")


def forwarded_fields(headers: Mapping[str, str], but: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the client's header fields that ``"*"`` stands for, except those named in ``but``, with hyphens."""
    for name, value in headers.items():
        if name.replace("_", "-") not in but and not star_leaves_out(name):
            yield name, value


def forwarded_cookies(
    headers: Mapping[str, str],
    cookies: Mapping[str, str],
    names: Collection[str],
    own: str = "",
    but: Collection[str] = (),
    set_here: Collection[str] = (),
) -> str:
    """The value of the field Cookie with the client's cookies of these names (``"*"``: all); empty without cookies.

    Args:
        own: the cookies that the configuration sets. They come first, and replace the client's of the same names.
        but: the cookies that ``"*"`` leaves out.
        set_here: the cookies that the configuration sets if they have a value. Those of the client are not sent.
    """
    if STAR not in names:
        chosen = [f"{name}={cookies[name]}" for name in names if name in cookies]
    elif own or but or set_here:
        chosen = [pair.strip(" \t") for pair in headers.get("cookie", "").split(";")]
        if but:
            chosen = [pair for pair in chosen if pair and _cookie_name(pair) not in but]
    else:
        return headers.get("cookie", "")
    if own or set_here:
        taken = {_cookie_name(pair) for pair in own.split(";")}.union(set_here, {""})
        chosen = [*([own] if own else ()), *(pair for pair in chosen if _cookie_name(pair) not in taken)]
    return "; ".join(chosen)


def without_cookies(value: bytes, names: Collection[bytes]) -> bytes:
    """A value of the field Cookie without the cookies of these names; the others stay byte for byte."""
    pairs = value.split(b";")
    kept = [pair for pair in pairs if pair.partition(b"=")[0].strip(b" \t") not in names]
    return value if len(kept) == len(pairs) else b";".join(kept).strip(b" \t")


def _cookie_name(pair: str) -> str:
    return pair.partition("=")[0].strip(" \t")
