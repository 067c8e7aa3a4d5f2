"""What of a configuration's plans can be run, and yet does probably not do what was meant.

``umbel check`` tells it; nothing is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config.schema import Config, KeyPath, Route
from .dag import PERSONAL
from .merge import lets_share


def warnings(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Each doubtful key, and why."""
    for index, route in enumerate(config.routes):
        for reason in _shared_cookies(route):
            yield ("routes", index, "answer", "cache_control"), reason


def _shared_cookies(route: Route) -> Iterator[str]:
    """Why an answer that shared caches may keep is one person's."""
    configured = route.answer.cache_control
    if not lets_share(configured):
        return
    if route.answer.forward_cookies:
        calls = ", ".join(route.answer.forward_cookies)
        yield f"the answer forwards cookies ({calls}); one that sets a cookie is sent as private, whatever stands here"
    personal = [
        name
        for name, call in route.calls.items()
        if call.forward_cookies or not PERSONAL.isdisjoint(call.forward_headers)
    ]
    if personal:
        calls = ", ".join(personal)
        yield (
            f"the client's cookies or its authorization go upstream ({calls}), so that shared caches may give one "
            'client\'s answer to another; write "private", or "parts"'
        )
