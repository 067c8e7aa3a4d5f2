"""FastAPI and aiohttp as a peer of ``gateways.py``: a fast stack in Python, under uvicorn and uvloop.

One pooled session for all requests, orjson in both directions, and a log that a thread writes, which was measured to
cost less than uvicorn's own access log. UPSTREAM and LOG are environment variables.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from access_log import written_by_a_thread
from fastapi import FastAPI, Response

DEADLINE_S = 2.0
IDLE_S = 600.0
log = logging.getLogger("access")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        base_url=os.environ["UPSTREAM"],
        # No limit: every call in flight has a connection, and it is kept while others are asked.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        # The request's deadline is the only clock: one timer less for each call.
        timeout=aiohttp.ClientTimeout(total=None),
        raise_for_status=True,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        app.state.session = session
        with written_by_a_thread(log):
            yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


async def call(session: aiohttp.ClientSession) -> object:
    async with session.get("/item/3") as response:
        return orjson.loads(await response.read())


async def composed(count: int) -> Response:
    session, began = app.state.session, time.perf_counter()
    try:
        async with asyncio.timeout(DEADLINE_S):
            values = await asyncio.gather(*[call(session) for _ in range(count)])
        status, answer = 200, {f"c{number}": value for number, value in enumerate(values)}
    except TimeoutError:
        status, answer = 504, {"error": "too late"}
    except aiohttp.ClientError as error:
        status, answer = 502, {"error": str(error)}
    log.info('"GET /n%d" %d %.1f ms', count, status, (time.perf_counter() - began) * 1e3)
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
