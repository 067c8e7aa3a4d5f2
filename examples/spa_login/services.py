"""The services behind the single-page application, in one program: an identity provider, and the orders.

    hypercorn -k trio -b 127.0.0.1:9001 services:app

The provider is for this example only. It asks for no password, and it forgets everything when it stops. What the page
and the gateway see of it is what a real OpenID Connect provider shows them: discovery, a key set, authorization code
with PKCE (RFC 7636), and access tokens that are signed JSON Web Tokens. Its public URL is at the gateway, whose port
is PORT.
"""

import os
import secrets
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey
from quart import Blueprint, redirect, request
from quart_trio import QuartTrio

PORT = os.environ.get("PORT", "8000")
ISSUER, PAGE = f"http://id.localhost:{PORT}", f"http://app.localhost:{PORT}/"
CLIENT, REDIRECT_URI = "shop-page", f"{PAGE}callback"
CODE_S, TOKEN_S = 60, 300
KEY = ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig", "alg": "ES256"})
USERS = {
    "ada": {"name": "Ada", "scopes": {"orders:read", "orders:write"}, "groups": []},
    "bela": {"name": "Bela", "scopes": {"orders:read"}, "groups": []},
    "grace": {"name": "Grace", "scopes": {"orders:read"}, "groups": ["support"]},
}
ORDERS = {"ada": [{"id": 1, "what": "dill"}], "bela": [{"id": 2, "what": "fennel tea"}]}
ORDERS_MAX = 20

app = QuartTrio(__name__, static_folder=None)
provider = Blueprint("provider", __name__, url_prefix="/id")
orders = Blueprint("orders", __name__, url_prefix="/orders")


class Grant(NamedTuple):
    """What an authorization code stands for."""

    user: str
    scope: str
    challenge: str
    expires: float


codes: dict[str, Grant] = {}
sessions: dict[str, str] = {}  # The user of each session cookie of the provider.


@provider.get("/.well-known/openid-configuration")
async def configuration():
    return {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "end_session_endpoint": f"{ISSUER}/logout",
        "jwks_uri": f"{ISSUER}/jwks.json",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
    }


@provider.get("/jwks.json")
async def key_set():
    return {"keys": [KEY.as_dict(private=False)]}


@provider.get("/authorize")
async def authorize():
    asked = request.args
    if asked.get("client_id") != CLIENT or asked.get("redirect_uri") != REDIRECT_URI:
        return "An unknown client. Nobody is sent anywhere.", 400
    if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
        return redirect(f"{REDIRECT_URI}?{urlencode({'error': 'invalid_request', 'state': asked.get('state', '')})}")
    user = sessions.get(request.cookies.get("session", ""))
    if user is None:
        return sign_in_page(urlencode(asked))
    scopes = USERS[user]["scopes"] & {*asked.get("scope", "").split()}
    code = secrets.token_urlsafe()
    codes[code] = Grant(user, " ".join(sorted(scopes)), asked["code_challenge"], time.monotonic() + CODE_S)
    return redirect(f"{REDIRECT_URI}?{urlencode({'code': code, 'state': asked.get('state', '')})}")


def sign_in_page(back):
    buttons = " ".join(f"<button name=user value={name}>{user['name']}</button>" for name, user in USERS.items())
    return (
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>Sign in</title><link rel=icon href=data:,><h1>Who are you?</h1>"
        f"<form method=post action=/login><input type=hidden name=back value='{back}'>{buttons}</form>"
    )


@provider.post("/login")
async def login():
    form = await request.form
    if form.get("user") not in USERS:
        return "There is no such user.", 400
    session = secrets.token_urlsafe()
    sessions[session] = form["user"]
    response = redirect(f"/authorize?{form.get('back', '')}", 303)
    response.set_cookie("session", session, httponly=True, samesite="Lax")
    return response


@provider.post("/token")
async def token():
    form = await request.form
    grant = codes.pop(form.get("code", ""), None)  # A code is good once.
    proof = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
    if form.get("grant_type") != "authorization_code" or form.get("client_id") != CLIENT or grant is None:
        return {"error": "invalid_grant"}, 400
    if not secrets.compare_digest(proof, grant.challenge) or grant.expires < time.monotonic():
        return {"error": "invalid_grant"}, 400
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "shop", "sub": grant.user, "iat": now, "exp": now + TOKEN_S, "scope": grant.scope}
    claims["groups"] = USERS[grant.user]["groups"]
    signed = jwt.encode({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}, claims, KEY)
    answer = {"access_token": signed, "token_type": "Bearer", "expires_in": TOKEN_S, "scope": grant.scope}
    return answer, {"Cache-Control": "no-store"}


@provider.get("/logout")
async def logout():
    sessions.pop(request.cookies.get("session", ""), None)
    return redirect(PAGE)


@orders.get("/")
async def list_orders():
    return ORDERS.get(request.args["user"], [])


@orders.post("/")
async def add_order():
    user, what = request.headers["X-User"], (await request.get_json())["what"]
    mine = ORDERS.setdefault(user, [])
    if len(mine) >= ORDERS_MAX:
        return {"error": "there are enough orders"}, 409
    mine.append({"id": 1 + max((order["id"] for each in ORDERS.values() for order in each), default=0), "what": what})
    return mine[-1], 201


app.register_blueprint(provider)
app.register_blueprint(orders)
