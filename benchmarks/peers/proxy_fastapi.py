"""FastAPI and aiohttp as a peer of the proxies in ``benchmarks/proxy``, under uvicorn and uvloop.

One pooled session, bodies passed on piece by piece in both directions, bytes as they are, and a log that a thread
writes. FILES, STREAMS and LOG are environment variables.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from access_log import written_by_a_thread
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from multidict import CIMultiDict
from yarl import URL

IDLE_S = 600.0
HEAD_S = 10.0
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"),
    *(b"transfer-encoding", b"upgrade", b"host"),
}
log = logging.getLogger("access")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        # A stream may last as long as it likes.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=HEAD_S),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        read_bufsize=256 * 1024,
    ) as session:
        app.state.session = session
        with written_by_a_thread(log):
            yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


def target(upstream: str, scope: dict[str, object]) -> URL:
    """The client's path and query, byte for byte."""
    raw_path, query = scope["raw_path"], scope["query_string"]
    assert isinstance(raw_path, bytes) and isinstance(query, bytes)
    return URL(
        f"{upstream}{raw_path.decode('latin-1')}" + (f"?{query.decode('latin-1')}" if query else ""), encoded=True
    )


async def passed(request: Request, upstream: str) -> Response:
    began = time.perf_counter()
    fields = CIMultiDict(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.scope["headers"]
        if name not in HOP_BY_HOP
    )
    if request.client is not None:
        fields.add("X-Forwarded-For", request.client.host)
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    try:
        answer = await app.state.session.request(
            request.method,
            target(upstream, request.scope),
            headers=fields,
            data=request.stream() if has_body else None,
            allow_redirects=False,
        )
    except aiohttp.ClientError as error:
        log.info('"%s %s" 502 %s', request.method, request.url.path, error)
        return Response(str(error), 502)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.content.iter_any():
                yield piece
        finally:
            answer.release()
            took = (time.perf_counter() - began) * 1e3
            log.info('"%s %s" %d %.1f ms', request.method, request.url.path, answer.status, took)

    response = StreamingResponse(body(), answer.status)
    response.raw_headers = [
        (lower, value) for name, value in answer.raw_headers if (lower := name.lower()) not in HOP_BY_HOP
    ]
    return response


@app.api_route("/files/{rest:path}", methods=METHODS)
async def files(request: Request) -> Response:
    return await passed(request, os.environ["FILES"])


@app.api_route("/streams/{rest:path}", methods=METHODS)
async def streams(request: Request) -> Response:
    return await passed(request, os.environ["STREAMS"])


@app.websocket("/sockets/{rest:path}")
async def sockets(websocket: WebSocket) -> None:
    async with app.state.session.ws_connect(target(os.environ["STREAMS"], websocket.scope)) as upstream:  # type: ignore[arg-type]
        await websocket.accept()

        async def to_upstream() -> None:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (text := message.get("text")) is not None:
                    await upstream.send_str(text)
                else:
                    await upstream.send_bytes(message["bytes"])

        async def to_client() -> None:
            async for message in upstream:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await websocket.send_text(message.data)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    await websocket.send_bytes(message.data)

        tasks = [asyncio.create_task(to_upstream()), asyncio.create_task(to_client())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(
                    outcome, WebSocketDisconnect | aiohttp.ClientError
                ):
                    log.error("a tunnel failed", exc_info=outcome)
