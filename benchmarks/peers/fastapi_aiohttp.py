"""FastAPI and aiohttp as a peer of ``gateways.py``: what one builds in Python for speed, under uvicorn and uvloop.

One pooled session for all requests, orjson both ways; the log is uvicorn's own access log, written to a file (see
``fastapi_aiohttp.json``). UPSTREAM comes by the environment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from fastapi import FastAPI, Response

DEADLINE_S = 2.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        base_url=os.environ["UPSTREAM"],
        # Room for every call in flight.
        connector=aiohttp.TCPConnector(limit=0),
        # The request's deadline is the only clock: one timer less for each call.
        timeout=aiohttp.ClientTimeout(total=None),
        raise_for_status=True,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


async def call(session: aiohttp.ClientSession) -> object:
    async with session.get("/item/3") as response:
        return orjson.loads(await response.read())


async def composed(count: int) -> Response:
    session = app.state.session
    try:
        async with asyncio.timeout(DEADLINE_S):
            values = await asyncio.gather(*[call(session) for _ in range(count)])
    except TimeoutError:
        return Response(b'{"error":"too late"}', 504, media_type="application/json")
    except aiohttp.ClientError as error:
        return Response(orjson.dumps({"error": str(error)}), 502, media_type="application/json")
    answer = {f"c{number}": value for number, value in enumerate(values)}
    # A Response as it is: FastAPI's own encoding would walk through the answer once more.
    return Response(orjson.dumps(answer), media_type="application/json")


@app.get("/n1")
async def n1() -> Response:
    return await composed(1)


@app.get("/n10")
async def n10() -> Response:
    return await composed(10)


@app.get("/n50")
async def n50() -> Response:
    return await composed(50)
