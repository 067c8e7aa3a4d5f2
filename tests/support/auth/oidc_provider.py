"""An OpenID Connect provider for tests, and the client of a single-page application that gets its token there.

The provider is an application that a test serves on loopback. It signs users in without a password, by the parameter
``login_hint``; the rest of the flow is that of a real provider: discovery, key set, authorization code with PKCE
(RFC 7636, S256 only), refresh tokens that are used once, and client credentials (RFC 6749).
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import trio
from joserfc.jwk import Key
from quart import Response, request
from quart_trio import QuartTrio

from tests.support.auth.tokens import jwk, private_key, sign
from tests.support.server.serving import fetch, serving

PAGE = "https://app.example"
"""The origin of the single-page application."""
REDIRECT = f"{PAGE}/callback"
SPA = "spa"
"""The client id of the single-page application, a public client."""
Trouble = Literal["", "hang", "500", "html", "issuer"]


class Grant(NamedTuple):
    """What an authorization code or a refresh token stands for."""

    client: str
    user: str
    scope: str
    challenge: str = ""
    redirect: str = ""


class Provider:
    """A provider; see the module.

    Args:
        algorithm: the algorithm of its keys.
        users: the claims of each user's tokens, by name.
        services: the secrets of confidential clients, which get tokens for themselves.
        audience: the claim aud of each token.
    """

    def __init__(
        self,
        algorithm: str = "ES256",
        *,
        users: Mapping[str, Mapping[str, Any]],
        services: Mapping[str, str] | None = None,
        audience: str = "shop",
    ) -> None:
        self.algorithm = algorithm
        self.port = 0
        self.trouble: Trouble = ""
        """How its documents are wrong: "hang" (no response), "500", "html", or "issuer" (a foreign one)."""
        self.failed = trio.Event()
        """Set once a document was wrong."""
        self.asked: list[str] = []
        """The paths of all requests."""
        self._users = users
        self._services = services or {}
        self._audience = audience
        self._number = secrets.randbits(48)
        self._codes: dict[str, Grant] = {}
        self._refresh_tokens: dict[str, Grant] = {}
        self._keys: list[tuple[str, Key]] = []
        self.rotate(keep=0)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rotate(self, *, keep: int = 1) -> None:
        """Sign with a new key from now on, and go on publishing the last ``keep`` keys."""
        self._number += 1
        self._keys = [(f"key-{self._number}", private_key(self.algorithm, self._number)), *self._keys[:keep]]

    def token(self, user: str, scope: str = "", **claims: Any) -> str:
        """Sign an access token for a user, as the token endpoint does. A claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": self._audience, "sub": user, "iat": now, "exp": now + 300, "scope": scope}
        kid, key = self._keys[0]
        header = {"kid": kid, "typ": "at+jwt"}
        return sign(key, self.algorithm, {**usual, **self._users.get(user, {})}, header=header, **claims)

    def key_set(self) -> str:
        """The published keys as JSON."""
        return json.dumps({"keys": [jwk(key, kid=kid, use="sig", alg=self.algorithm) for kid, key in self._keys]})

    def app(self) -> QuartTrio:
        """The application to serve."""
        app = QuartTrio(__name__, static_folder=None)
        app.before_request(self._note)
        app.get("/.well-known/openid-configuration")(self._configuration)
        app.get("/jwks.json")(self._jwks)
        app.get("/authorize")(self._authorize)
        app.post("/token")(self._token)
        return app

    async def _note(self) -> None:
        self.asked.append(request.path)

    async def _configuration(self) -> Response:
        issuer = self.issuer
        return await self._document(
            {
                "issuer": "https://foreign.example" if self.trouble == "issuer" else issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/jwks.json",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [self.algorithm],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def _jwks(self) -> Response:
        return await self._document(json.loads(self.key_set()))

    async def _document(self, value: object) -> Response:
        if self.trouble:
            self.failed.set()
        if self.trouble == "hang":
            await trio.sleep_forever()
        if self.trouble == "500":
            return Response("out of order", 500)
        if self.trouble == "html":
            return Response("<html>Please try again later.</html>", 200, content_type="text/html")
        return _json(value)

    async def _authorize(self) -> Response:
        asked = request.args
        user = asked.get("login_hint", "")
        if asked.get("client_id") != SPA or asked.get("redirect_uri") != REDIRECT or user not in self._users:
            return _json({"error": "invalid_request"}, 400)  # Not to redirect_uri (RFC 6749 section 4.1.2.1).
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return _redirect({"error": "invalid_request", "state": asked.get("state", "")})
        code = secrets.token_urlsafe()
        self._codes[code] = Grant(SPA, user, asked.get("scope", ""), asked.get("code_challenge", ""), REDIRECT)
        return _redirect({"code": code, "state": asked.get("state", "")})

    async def _token(self) -> Response:
        form = await request.form
        kind = form.get("grant_type")
        if kind == "client_credentials":
            client = request.authorization
            secret = None if client is None else self._services.get(str(client.username))
            if client is None or secret is None or client.password != secret:
                return _json({"error": "invalid_client"}, 401)
            return _json(self._granted(Grant(str(client.username), str(client.username), form.get("scope", ""))))
        if kind == "authorization_code":
            grant = self._codes.pop(form.get("code", ""), None)
            if grant is not None and not _proves(form.get("code_verifier", ""), grant.challenge):
                grant = None
            if grant is not None and form.get("redirect_uri") != grant.redirect:
                grant = None
        elif kind == "refresh_token":
            grant = self._refresh_tokens.pop(form.get("refresh_token", ""), None)
        else:
            return _json({"error": "unsupported_grant_type"}, 400)
        if grant is None or form.get("client_id") != grant.client:
            return _json({"error": "invalid_grant"}, 400)
        refresh_token = secrets.token_urlsafe()
        self._refresh_tokens[refresh_token] = grant
        return _json({**self._granted(grant), "refresh_token": refresh_token})

    def _granted(self, grant: Grant) -> dict[str, Any]:
        token = self.token(grant.user, grant.scope, client_id=grant.client)
        return {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": grant.scope}


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


def _redirect(params: Mapping[str, str]) -> Response:
    return Response("", 302, {"Location": f"{REDIRECT}?{urlencode(params)}"})


def _challenge(verifier: str) -> str:
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _proves(verifier: str, challenge: str) -> bool:
    return bool(challenge) and secrets.compare_digest(_challenge(verifier), challenge)


@asynccontextmanager
async def provided(provider: Provider) -> AsyncIterator[Provider]:
    """Serve a provider within the block."""
    async with serving(provider.app()) as port:
        provider.port = port
        yield provider


class TokenError(Exception):
    """The provider has issued no token. The message is its error code."""


async def signed_in(provider: Provider, user: str, scope: str = "") -> dict[str, Any]:
    """The response of the token endpoint for a user who signs in to the single-page application, all over HTTP."""
    found = (await fetch(provider.port, "GET", "/.well-known/openid-configuration")).json
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe()
    params = {
        "response_type": "code",
        "client_id": SPA,
        "redirect_uri": REDIRECT,
        "scope": scope,
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        "login_hint": user,
    }
    page = await fetch(provider.port, "GET", f"{urlsplit(found['authorization_endpoint']).path}?{urlencode(params)}")
    if page.status != 302:
        raise TokenError(page.json["error"])
    back = dict(parse_qsl(urlsplit(page["location"]).query))
    assert back["state"] == state
    form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT, "client_id": SPA}
    return await ask_for_token(provider, {**form, "code_verifier": verifier})


async def ask_for_token(
    provider: Provider, form: Mapping[str, str], fields: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The response of the token endpoint to a form.

    Raises:
        TokenError: it is an error.
    """
    usual = {"content-type": "application/x-www-form-urlencoded"}
    reply = await fetch(provider.port, "POST", "/token", {**usual, **(fields or {})}.items(), urlencode(form).encode())
    answer: dict[str, Any] = reply.json
    if reply.status != 200:
        raise TokenError(answer["error"])
    return answer
