"""Umbel's own configurations: three routes of 1, 10 and 50 calls in ``gateways.py``, and the routes of ``proxy``.

``umbel check`` accepts them. They are as a user would write them, and must set no key only for speed.
"""

from __future__ import annotations


def configuration(upstream: int, counts: tuple[int, ...]) -> str:
    """The text of umbel.toml, with an upstream on this port of loopback; its logs go to ``logs`` beside it."""
    parts = [
        f"""\
# Nothing but urls, paths and deadlines: every limit, timeout, policy and record is as it comes.
[upstreams.items]
urls = ["http://127.0.0.1:{upstream}"]
"""
    ]
    for count in counts:
        parts.append(f'\n[[routes]]\npath = "/n{count}"\ndeadline = "2s"\n')
        parts += [f'[routes.calls.c{call}]\nupstream = "items"\npath = "/item/3"\n' for call in range(count)]
    return "".join(parts)


def proxy_configuration(files: int, streams: int) -> str:
    """The text of umbel.toml for ``make bench-proxy``, with two upstreams on these ports of loopback."""
    return f"""\
# Nothing but urls and paths: every limit, timeout, policy and record is as it comes.
[upstreams.files]
urls = ["http://127.0.0.1:{files}"]

[upstreams.streams]
urls = ["http://127.0.0.1:{streams}"]

[[routes]]
path = "/files/<path:rest>"
[routes.proxy]
upstream = "files"

[[routes]]
path = "/streams/<path:rest>"
[routes.proxy]
upstream = "streams"

[[routes]]
path = "/sockets/<path:rest>"
[routes.proxy]
upstream = "streams"
websocket = true
"""
