"""What of a configuration's plans can be run, and yet does probably not do what was meant.

``umbel check`` tells it; nothing is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config.schema import Config, KeyPath, Route
from .dag import Plan
from .merge import lets_share
from .plan import compile_route


def warnings(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Each doubtful key, and why; the plans of ``config`` have been checked."""
    for index, route in enumerate(config.routes):
        if lets_share(route.answer.cache_control):
            for reason in _shared_cookies(route, compile_route(config, index)):
                yield ("routes", index, "answer", "cache_control"), reason


def _shared_cookies(route: Route, plan: Plan) -> Iterator[str]:
    """Why an answer that shared caches may keep is one person's."""
    if route.answer.forward_cookies:
        calls = ", ".join(route.answer.forward_cookies)
        yield f"the answer forwards cookies ({calls}); one that sets a cookie is sent as private, whatever stands here"
    if plan.private:
        yield (
            "the answer is made with the client's cookies or its authorization, and shared caches may give it to "
            'others; write "private", or "parts"'
        )
