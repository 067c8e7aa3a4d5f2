"""FastAPI, httpx and aiofiles as a peer of ``gateways.py``, for gunicorn with one uvicorn worker.

One pooled client for all requests with a connection for each call in flight, orjson in both directions, and one line
per request that aiofiles appends before the response is sent, so that no line is lost. UPSTREAM and LOG are environment
variables.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiofiles
import httpx
import orjson
from fastapi import FastAPI, Response

DEADLINE_S = 2.0
IDLE_S = 600.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # No limit: every call in flight has a connection, and it is kept while others are asked. Limits of 20, 100 and 800
    # made no difference beyond the noise.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_S)
    # The request's deadline is the only clock: one timeout less for each call to keep.
    client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], limits=limits, timeout=None, trust_env=False)
    # Unbuffered, and opened to append: a line is one write, in one hop to a thread.
    async with client, aiofiles.open(os.environ["LOG"], "ab", buffering=0) as log:
        app.state.client, app.state.log = client, log
        yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


async def call() -> object:
    response = await app.state.client.get("/item/3")
    response.raise_for_status()
    return orjson.loads(response.content)


async def composed(count: int) -> Response:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(DEADLINE_S):
            values = await asyncio.gather(*[call() for _ in range(count)])
        status, answer = 200, {f"c{number}": value for number, value in enumerate(values)}
    except TimeoutError:
        status, answer = 504, {"error": "too late"}
    except httpx.HTTPError as error:
        status, answer = 502, {"error": str(error)}
    line = {"ts": time.time(), "path": f"/n{count}", "status": status, "duration": time.perf_counter() - began}
    await app.state.log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    # A Response as it is: FastAPI's own encoding would walk through the answer once more.
    return Response(orjson.dumps(answer), status, media_type="application/json")


@app.get("/n1")
async def n1() -> Response:
    return await composed(1)


@app.get("/n10")
async def n10() -> Response:
    return await composed(10)


@app.get("/n50")
async def n50() -> Response:
    return await composed(50)
