"""The page of lab 2 as an ASGI application, whose calls do not end, and what its tests ask."""

import asyncio
from typing import Any

running: dict[str, int] = {}


async def call(path: str) -> None:
    running[path] = running.get(path, 0) + 1
    try:
        await asyncio.sleep(3600)
    finally:
        running[path] -= 1


async def gather() -> None:
    await asyncio.gather(*(call("/gather") for _ in range(5)))


async def taskgroup() -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(call("/taskgroup"))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """``/gather`` and ``/taskgroup`` make five calls; ``/listening`` one, until the client has left."""
    if scope["type"] != "http":
        return
    await receive()
    match scope["path"]:
        case "/gather":
            await gather()
        case "/taskgroup":
            await taskgroup()
        case "/listening":
            working = asyncio.create_task(call("/listening"))
            while (await receive())["type"] != "http.disconnect":
                pass
            working.cancel()
    body = repr(running.get(scope["query_string"].decode(), 0)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
