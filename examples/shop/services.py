"""The services behind the shop's page, in one program: catalog, pricing, stock, reviews, users, cart and images.

    hypercorn -k trio -b 127.0.0.1:9001 services:app

Each service has its own first segment of the path, and is an upstream of its own in umbel.toml. The variables SLOW and
FAIL name services, with commas between them, that take two seconds longer or answer with 500:

    SLOW=reviews FAIL=stock hypercorn -k trio -b 127.0.0.1:9001 services:app
"""

import os

import trio
from quart import Response, request
from quart_trio import QuartTrio

LATENCY_S = {"catalog": 0.01, "pricing": 0.02, "stock": 0.03, "reviews": 0.05, "users": 0.01, "cart": 0.01}
SLOW_S = 2.0
SLOW = set(os.environ.get("SLOW", "").split(","))
FAIL = set(os.environ.get("FAIL", "").split(","))

PRODUCTS = {
    "dill": {"sku": "dill", "title": "Dill seed, 5 g", "similar": ["fennel", "caraway", "hemlock"]},
    "fennel": {"sku": "fennel", "title": "Fennel tea, 20 bags", "similar": ["dill"]},
    "caraway": {"sku": "caraway", "title": "Caraway bread", "similar": []},
}
PRICES = {"dill": 240, "fennel": 390, "caraway": 450}
STOCK = {"dill": 12, "fennel": 0, "caraway": 3}
REVIEWS = {
    "dill": [
        {"author": "7", "stars": 5, "text": "Came up within a week."},
        {"author": "9", "stars": 4, "text": "Good, but the bag is small."},
        {"author": "7", "stars": 5, "text": "Bought it again."},
    ]
}
USERS = {"7": "Ada", "9": "Grace"}
CARTS = {"ada": ["dill", "caraway"]}
IMAGE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="green"/></svg>\n'

app = QuartTrio(__name__, static_folder=None)


@app.before_request
async def be_slow_or_fail():
    service = request.path.split("/")[1]
    await trio.sleep(LATENCY_S.get(service, 0.0) + (SLOW_S if service in SLOW else 0.0))
    if service in FAIL:
        return {"error": f"{service} was started with FAIL"}, 500
    return None


@app.get("/catalog/products/<sku>")
async def product(sku):
    caching = {"Cache-Control": "public, max-age=600"}
    return (PRODUCTS[sku], caching) if sku in PRODUCTS else ({"error": "there is no such product"}, 404, caching)


@app.get("/pricing/prices/<sku>")
async def price(sku):
    return {"cents": PRICES[sku], "currency": "EUR"}, {"Cache-Control": "public, max-age=60"}


@app.get("/stock/levels/<sku>")
async def level(sku):
    return {"count": STOCK[sku]}, {"Cache-Control": "public, max-age=10"}


@app.get("/reviews/of/<sku>")
async def reviews(sku):
    return REVIEWS.get(sku, [])[: request.args.get("limit", 10, type=int)], {"Cache-Control": "public, max-age=300"}


@app.get("/users/<user>")
async def user(user):
    return {"name": USERS[user]}, {"Cache-Control": "public, max-age=300"}


@app.get("/cart/items")
async def cart():
    return CARTS.get(request.cookies.get("session", ""), [])


@app.get("/images/<path:name>")
@app.get("/images-copy/<path:name>")
async def image(name):
    headers = {"Cache-Control": "public, max-age=86400", "X-From": request.path.split("/")[1]}
    return Response(IMAGE, content_type="image/svg+xml", headers=headers)
