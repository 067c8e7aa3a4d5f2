"""The gateway of ``path_calls.py``: the routes of ``./umbel.toml``, and two routes whose calls are made in code.

``path_app.py CONFIG`` serves as ``umbel serve`` does for a user's application; ``CONFIG`` is ``./umbel.toml``.
"""

from __future__ import annotations

import sys
from typing import Any

from umbel import Umbel

CALLS = 10


def make() -> Umbel:
    app = Umbel.from_file("umbel.toml")

    async def made(compose: Any, item_id: str, count: int) -> dict[str, Any]:
        async with compose.gather() as g:
            parts = {
                f"part{number}": g.get("parts", f"/items/{item_id}/parts/{number}", name=f"part{number}")
                for number in range(count)
            }
        return {name: part.value for name, part in parts.items()}

    @app.compose("/code/<item_id>", deadline=5)
    async def code(compose: Any, item_id: str) -> dict[str, Any]:
        return await made(compose, item_id, CALLS)

    @app.compose("/code-one/<item_id>", deadline=5)
    async def code_one(compose: Any, item_id: str) -> dict[str, Any]:
        return await made(compose, item_id, 1)

    return app


if __name__ == "__main__":
    from umbel.cli import main

    sys.argv = ["umbel", "serve", "path_app:make()", "-b", "127.0.0.1:0", "-c", sys.argv[1]]
    main()
