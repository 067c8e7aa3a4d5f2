"""Step 1: the same FastAPI application on trio, under `umbel serve`, with umbel.logs for aiofiles.

umbel serve -w 2 -b 127.0.0.1:8000 app:app
"""

import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt

from umbel.logs import open_log

SERVICES = os.environ.get("SERVICES", "http://127.0.0.1:9001")
LOG = Path(os.environ.get("LOGS_DIR", "logs"), "access.jsonl")
DEADLINE_S = 0.8


@asynccontextmanager
async def lifespan(app):
    LOG.parent.mkdir(exist_ok=True)
    async with open_log(LOG) as log, httpx.AsyncClient(base_url=SERVICES, timeout=None) as client:
        app.state.log, app.state.client = log, client
        yield


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    sku: str
    qty: PositiveInt


@app.middleware("http")
async def log_request(request, call_next):
    began = time.perf_counter()
    response = await call_next(request)
    duration = round((time.perf_counter() - began) * 1000, 3)
    app.state.log.info("request", path=request.url.path, status=response.status_code, ms=duration)  # It never waits.
    return response


async def call(method, path, **options):
    try:
        response = await app.state.client.request(method, path, **options)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise HTTPException(status if status in (404, 422) else 502) from error
    except httpx.TransportError as error:
        raise HTTPException(502) from error
    return response.json()


@asynccontextmanager
async def deadline():
    try:
        with trio.fail_after(DEADLINE_S):
            yield
    except trio.TooSlowError as error:
        raise HTTPException(504) from error


async def together(**calls):
    """Run calls at the same time and return their results by name. The first failure ends the others and is raised."""
    results = {}

    async def run(name, awaitable):
        results[name] = await awaitable

    try:
        async with trio.open_nursery() as nursery:
            for name, awaitable in calls.items():
                nursery.start_soon(run, name, awaitable)
    except* HTTPException as group:
        failed = group.exceptions[0]
    else:
        return results
    raise failed


@app.get("/dashboard/{user_id}")
async def dashboard(user_id: int):
    async with deadline():
        found = await together(
            user=call("GET", f"/users/{user_id}"),
            orders=call("GET", "/orders/", params={"user_id": user_id}),
        )
        user, orders = found["user"], found["orders"]
        try:
            offers = await call("GET", f"/offers/{user['segment']}")
        except HTTPException:
            offers = None
    return {"name": user["name"], "orders": orders, "offers": offers}


@app.get("/orders/{order_id}")
async def order(order_id: int):
    async with deadline():
        return await call("GET", f"/orders/{order_id}")


@app.post("/orders", status_code=201)
async def add_order(order: Order):
    async with deadline():
        return await call("POST", "/orders/", json=order.model_dump())
