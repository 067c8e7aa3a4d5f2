"""Paths that two servers could interpret differently: the gateway refuses them before it matches a route.

The framing of these requests is sound, so the connection persists.
"""

from __future__ import annotations

from .case import Table, get, served

_REFUSED: dict[str, bytes] = {
    "a query alone": b"?x",
    "no slash": b"x",
    "a percent sign before no hex": b"/up/%zz",
    "a percent sign at the end": b"/up/%",
    "a percent sign before one digit": b"/up/%4",
    "an encoded NUL": b"/up/%00",
    "a number sign": b"/up/x#y",
    "a number sign in the query": b"/up/x?y#z",
    "a raw byte over 0x7f": b"/up/\xff",
    "raw UTF-8": "/up/é".encode(),
    "dots at the end": b"/up/..",
    "dots within": b"/up/../livez",
    "dots at the start": b"/../livez",
    "one dot": b"/up/./x",
    "encoded dots": b"/up/%2e%2e/livez",
    "encoded dots in capitals": b"/up/%2E%2E",
    "half-encoded dots": b"/up/.%2e",
    "an encoded slash": b"/up/a%2fb",
    "an encoded slash in capitals": b"/up/a%2Fb",
    "an encoded backslash": b"/up/a%5cb",
    "a backslash": b"/up/a\\b",
    "an encoded byte that is not UTF-8": b"/up/%ff",
    "an overlong encoding": b"/up/%c0%ae%c0%ae/x",
    "an encoded surrogate": b"/up/%ed%a0%80",
}

PATHS: Table = {
    **{name: served(get(target=target), 400) for name, target in _REFUSED.items()},
    "an unknown path": served(get(target=b"/nowhere"), 404),
    "two slashes": served(get(target=b"//r"), 308),
    "an encoded letter": served(get(target=b"/%72")),
    "a question mark alone": served(get(target=b"/r?")),
    "a raw byte over 0x7f in the query": served(get(target=b"/r?y=\xff")),
    "dots that are no segment": served(get(target=b"/nowhere..x/..."), 404),
}
