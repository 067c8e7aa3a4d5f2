"""One application in three frameworks: a bare ASGI callable, Starlette over anyio, and Quart-Trio.

    GET  /hello        "hello"                         POST /echo    the request body, each part as it arrives
    GET  /where        the request's scope as JSON     POST /early   413, without reading the body
    GET  /numbers      0…99, each in a body part       POST /count   the length of the request body as text
    GET  /state        the state set by the lifespan   GET  /hang    no response until the client leaves
    GET  /raise        an exception before the head    GET  /break   an exception within the response body

``Happened`` records events inside the application that a client cannot see.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.lowlevel
from quart import Response as QuartResponse
from quart import request as quart_request
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

App = Callable[[Any, Any, Any], Awaitable[None]]


class Happened:
    """The log of events inside an application, and a wait for one of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._news = trio.lowlevel.ParkingLot()

    def note(self, what: str) -> None:
        self.log.append(what)
        self._news.unpark_all()

    async def wait_for(self, what: str) -> None:
        with trio.fail_after(5):
            while what not in self.log:
                await self._news.park()


class BoomError(Exception):
    """An exception of the application's own code."""


def facts(scope: Any) -> dict[str, Any]:
    """The members of a request's scope as JSON values."""
    return {
        "http_version": scope["http_version"],
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query_string": scope["query_string"].decode("latin-1"),
        "root_path": scope["root_path"],
        "scheme": scope["scheme"],
        "client": list(scope["client"]),
        "server": list(scope["server"]),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "asgi": scope["asgi"],
    }


async def numbers() -> AsyncIterator[bytes]:
    for number in range(100):
        yield b"%d\n" % number


async def broken() -> AsyncIterator[bytes]:
    yield b"half"
    await trio.lowlevel.checkpoint()
    raise BoomError("in mid-body")


def bare(happened: Happened) -> App:
    """The application as a bare ASGI callable, whose lifespan sets state."""

    async def http(scope: Any, receive: Any, send: Any) -> None:
        async def answer(status: int, *parts: bytes, headers: Any = ()) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

        async def body() -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    happened.note("disconnected")
                    return
                more = message.get("more_body", False)
                yield message.get("body", b"")

        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/echo":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for part in body():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        elif path == "/count":
            length = 0
            async for part in body():
                length += len(part)
            await answer(200, b"%d" % length)
        elif path == "/numbers":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for part in numbers():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        elif path == "/hang":
            happened.note("hanging")
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                happened.note("left")
        elif path == "/raise":
            raise BoomError("before the head")
        elif path == "/break":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for part in broken():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        elif path == "/early":
            await answer(413, b"too much")
        elif path == "/state":
            await answer(200, str(scope["state"]["greeting"]).encode())
        elif path == "/where":
            await answer(200, json.dumps(facts(scope)).encode())
        else:
            await answer(200, b"hello", headers=[(b"content-length", b"5"), (b"content-type", b"text/plain")])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await http(scope, receive, send)
            return
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["greeting"] = "from the lifespan"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        happened.note("shut down")
        await send({"type": "lifespan.shutdown.complete"})

    return app


def starlette(happened: Happened) -> App:
    """The application with Starlette, whose anyio detects trio."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"greeting": "from the lifespan"}
        happened.note("shut down")

    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    async def where(request: Request) -> Response:
        return JSONResponse(facts(request.scope))

    async def stream(request: Request) -> Response:
        return StreamingResponse(numbers())

    async def state(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    async def raising(request: Request) -> Response:
        raise BoomError("before the head")

    async def breaking(request: Request) -> Response:
        return StreamingResponse(broken())

    async def echo(request: Request) -> Response:
        return StreamingResponse(request.stream())

    async def early(request: Request) -> Response:
        return PlainTextResponse("too much", 413)

    async def count(request: Request) -> Response:
        length = 0
        async for part in request.stream():
            length += len(part)
        return PlainTextResponse(str(length))

    async def hang(request: Request) -> Response:
        happened.note("hanging")
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        finally:
            happened.note("left")
        return PlainTextResponse("nobody reads this")

    gets = {"hello": hello, "where": where, "numbers": stream, "state": state, "raise": raising, "break": breaking}
    posts = {"echo": echo, "early": early, "count": count}
    return Starlette(
        lifespan=lifespan,
        routes=[
            *(Route(f"/{name}", view) for name, view in {**gets, "hang": hang}.items()),
            *(Route(f"/{name}", view, methods=["POST"]) for name, view in posts.items()),
        ],
    )


def quart(happened: Happened) -> App:
    """The application with Quart-Trio."""
    app = QuartTrio("conformance", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = None
    greetings: list[str] = []

    @app.before_serving
    async def begin() -> None:
        greetings.append("from the lifespan")

    @app.after_serving
    async def end() -> None:
        happened.note("shut down")

    @app.get("/hello")
    async def hello() -> Any:
        return "hello", {"content-type": "text/plain"}

    @app.get("/where")
    async def where() -> Any:
        return facts(quart_request.scope)

    @app.get("/numbers")
    async def stream() -> Any:
        return numbers(), 200

    @app.get("/state")
    async def state() -> Any:
        return greetings[0]

    @app.get("/raise")
    async def raising() -> Any:
        raise BoomError("before the head")

    @app.get("/break")
    async def breaking() -> Any:
        return broken(), 200

    @app.post("/echo")
    async def echo() -> Any:
        async def parts() -> AsyncIterator[bytes]:
            async for part in body:
                yield part

        body = quart_request.body
        response = QuartResponse(parts())
        response.timeout = None
        return response

    @app.post("/early")
    async def early() -> Any:
        return "too much", 413

    @app.post("/count")
    async def count() -> Any:
        length = 0
        async for part in quart_request.body:
            length += len(part)
        return str(length)

    @app.get("/hang")
    async def hang() -> Any:
        happened.note("hanging")
        try:
            await trio.sleep_forever()
        finally:
            happened.note("left")

    return app


APPS: dict[str, Callable[[Happened], App]] = {"a callable": bare, "Starlette": starlette, "Quart-Trio": quart}
