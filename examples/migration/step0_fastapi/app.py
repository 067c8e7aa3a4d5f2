"""Step 0, where many start: FastAPI, httpx and aiofiles, under gunicorn with uvicorn workers.

gunicorn -w 2 -k uvicorn_worker.UvicornWorker -b 127.0.0.1:8000 app:app
"""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiofiles
import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt

SERVICES = os.environ.get("SERVICES", "http://127.0.0.1:9001")
LOG = Path(os.environ.get("LOGS_DIR", "logs"), "access.jsonl")
log_tasks = set()


@asynccontextmanager
async def lifespan(app):
    LOG.parent.mkdir(exist_ok=True)
    async with httpx.AsyncClient(base_url=SERVICES, timeout=0.8) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    sku: str
    qty: PositiveInt


@app.middleware("http")
async def log_request(request, call_next):
    began = time.perf_counter()
    response = await call_next(request)
    line = {"ts": time.time(), "path": request.url.path, "status": response.status_code}
    line["ms"] = round((time.perf_counter() - began) * 1000, 3)
    task = asyncio.create_task(write(line))  # So that the response does not wait for the disk.
    log_tasks.add(task)
    task.add_done_callback(log_tasks.discard)
    return response


async def write(line):
    async with aiofiles.open(LOG, "a") as file:
        await file.write(json.dumps(line) + "\n")


async def call(method, path, **options):
    try:
        response = await app.state.client.request(method, path, **options)
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise HTTPException(status if status in (404, 422) else 502) from error
    except httpx.TimeoutException as error:
        raise HTTPException(504) from error
    except httpx.TransportError as error:
        raise HTTPException(502) from error
    return response.json()


@app.get("/dashboard/{user_id}")
async def dashboard(user_id: int):
    user, orders = await asyncio.gather(
        call("GET", f"/users/{user_id}"),
        call("GET", "/orders/", params={"user_id": user_id}),
    )
    try:
        offers = await call("GET", f"/offers/{user['segment']}")
    except HTTPException:
        offers = None
    return {"name": user["name"], "orders": orders, "offers": offers}


@app.get("/orders/{order_id}")
async def order(order_id: int):
    return await call("GET", f"/orders/{order_id}")


@app.post("/orders", status_code=201)
async def add_order(order: Order):
    return await call("POST", "/orders/", json=order.model_dump())
