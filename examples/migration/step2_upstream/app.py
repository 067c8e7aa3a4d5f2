"""Step 2: as step 1, with umbel.upstream under httpx: a transport for each service, with retries and a breaker.

umbel serve -w 2 -b 127.0.0.1:8000 app:app
"""

import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import trio
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt

from umbel.logs import open_log
from umbel.upstream import BreakerRules, Retry, Transport

SERVICES = os.environ.get("SERVICES", "http://127.0.0.1:9001")
LOG = Path(os.environ.get("LOGS_DIR", "logs"), "access.jsonl")
DEADLINE_S = 0.8


@asynccontextmanager
async def lifespan(app):
    LOG.parent.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        app.state.log = await stack.enter_async_context(open_log(LOG))
        app.state.clients = {}
        for name in ("users", "orders", "offers"):
            transport = Transport([f"{SERVICES}/{name}"], retry=Retry(attempts=2), breaker=BreakerRules(), name=name)
            client = httpx.AsyncClient(transport=transport, base_url=f"http://{name}", timeout=None)
            app.state.clients[name] = await stack.enter_async_context(client)
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


async def call(service, method, path, **options):
    try:
        response = await app.state.clients[service].request(method, path, **options)
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
            user=call("users", "GET", f"/{user_id}"),
            orders=call("orders", "GET", "/", params={"user_id": user_id}),
        )
        user, orders = found["user"], found["orders"]
        try:
            offers = await call("offers", "GET", f"/{user['segment']}")
        except HTTPException:
            offers = None
    return {"name": user["name"], "orders": orders, "offers": offers}


@app.get("/orders/{order_id}")
async def order(order_id: int):
    async with deadline():
        return await call("orders", "GET", f"/{order_id}")


@app.post("/orders", status_code=201)
async def add_order(order: Order):
    async with deadline():
        return await call("orders", "POST", "/", json=order.model_dump())
