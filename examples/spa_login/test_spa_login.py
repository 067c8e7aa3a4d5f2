"""Who may do what, without the services: a key of the test signs tokens, and everything else is scripted.

pip install 'umbel[auth,testing]' && pytest
"""

import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from umbel.testing import json

CONFIG = Path(__file__).with_name("umbel.toml")
ISSUER, PAGE, API = "http://id.localhost:8000", "http://app.localhost:8000", "http://api.localhost:8000"
KEY, FOREIGN_KEY = [ECKey.generate_key("P-256", {"kid": "1", "use": "sig", "alg": "ES256"}) for _ in range(2)]
SERVICES = {
    "id": {"/id/jwks.json": json({"keys": [KEY.as_dict(private=False)]})},
    "orders": {"GET /orders/": json([{"id": 1}]), "POST /orders/": json({"id": 2}, 201)},
}


def signed(key=KEY, **changes):
    """The Authorization of a token for Ada, who may read."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "shop", "sub": "ada", "iat": now, "exp": now + 300, "scope": "orders:read"}
    return {"authorization": f"Bearer {jwt.encode({'alg': 'ES256', 'kid': '1'}, claims | changes, key)}"}


async def test_the_upstream_learns_who_asks_and_gets_no_token(umbel_gateway):
    async with umbel_gateway(CONFIG, SERVICES, base_url=API) as client:
        answer = await client.get("/me/orders", headers=signed())
        [asked] = client.received("orders")

    assert answer.json() == {"user": "ada", "orders": [{"id": 1}]}
    assert dict(asked.params) == {"user": "ada"}
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(FOREIGN_KEY),
        signed(exp=int(time.time()) - 3600),
        signed(aud="another service"),
        signed(iss="http://another.example"),
    ],
    ids=["no token", "foreign key", "expired", "audience", "issuer"],
)
async def test_without_a_valid_token_no_call_is_made(headers, umbel_gateway):
    async with umbel_gateway(CONFIG, SERVICES, base_url=API) as client:
        answer = await client.get("/me/orders", headers={"origin": PAGE, **headers})
        assert client.received("orders") == []

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(("scope", "status"), [("orders:read", 403), ("orders:read orders:write", 201)])
async def test_who_places_orders_needs_the_scope_for_it(scope, status, umbel_gateway):
    async with umbel_gateway(CONFIG, SERVICES, base_url=API) as client:
        answer = await client.post("/me/orders", json={"what": "bread"}, headers=signed(scope=scope))

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("claims", "status"),
    [({}, 403), ({"groups": ["support"]}, 200), ({"groups": "support"}, 403), ({"sub": "bela"}, 200)],
)
async def test_the_orders_of_bela_are_for_bela_and_the_support_team(claims, status, umbel_gateway):
    async with umbel_gateway(CONFIG, SERVICES, base_url=API) as client:
        answer = await client.get("/users/bela/orders", headers=signed(**claims))

    assert answer.status_code == status
