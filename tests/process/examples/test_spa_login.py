"""examples/spa_login: its commands run, and a token that was got as the page gets it opens what README.md says."""

from __future__ import annotations

import json
import secrets
import signal
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.support.process.examples import Example, running_example

SHOWN_PORT = "8000"


class Site:
    """The three origins of the example, asked through one client that keeps no cookies."""

    def __init__(self, example: Example, client: httpx.AsyncClient) -> None:
        self.example = example
        self._client = client
        self.page = f"http://app.localhost:{example.port}"

    async def ask(self, method: str, host: str, target: str, **options: object) -> httpx.Response:
        """Send a request to the gateway for a host; ``token`` and ``origin`` are header fields."""
        fields = {"host": f"{host}:{self.example.port}", "origin": options.pop("origin", self.page)}
        if token := options.pop("token", None):
            fields["authorization"] = f"Bearer {token}"
        fields.update(options.pop("headers", {}))  # type: ignore[call-overload]
        self._client.cookies.clear()  # They would be those of the address, and so of all three hosts.
        return await self._client.request(method, target, headers=fields, **options)  # type: ignore[arg-type]

    async def api(self, method: str, target: str, **options: object) -> httpx.Response:
        return await self.ask(method, "api.localhost", target, **options)

    async def provider(self, method: str, target: str, **options: object) -> httpx.Response:
        return await self.ask(method, "id.localhost", target, **options)

    async def code(self, user: str, verifier: str) -> tuple[str, str]:
        """The authorization code for a user who signs in, and the cookie of the provider's session."""
        query = authorization(self.page, verifier)
        form = await self.provider("GET", f"/authorize?{query}")
        assert (form.status_code, f"value={user}" in form.text) == (200, True)
        signed_in = await self.provider("POST", "/login", data={"user": user, "back": query})
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        assert "HttpOnly" in signed_in.headers["set-cookie"]
        back = await self.provider("GET", signed_in.headers["location"], headers={"cookie": cookie})
        found = parse_qs(urlsplit(back.headers["location"]).query)
        assert back.headers["location"].startswith(f"{self.page}/callback?")
        assert found["state"] == ["a state"]
        return found["code"][0], cookie

    async def exchange(self, code: str, verifier: str) -> httpx.Response:
        """The response of the token endpoint."""
        form = {"grant_type": "authorization_code", "code": code, "client_id": "shop-page", "code_verifier": verifier}
        return await self.provider("POST", "/token", data=form)

    async def token(self, user: str) -> str:
        verifier = secrets.token_urlsafe(48)
        code, _ = await self.code(user, verifier)
        return str((await self.exchange(code, verifier)).json()["access_token"])


def authorization(page: str, verifier: str) -> str:
    """The query of the authorization request that the page makes."""
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return urlencode(
        {
            "response_type": "code",
            "client_id": "shop-page",
            "redirect_uri": f"{page}/callback",
            "scope": "orders:read orders:write",
            "state": "a state",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )


@asynccontextmanager
async def site(scratch: Path) -> AsyncIterator[Site]:
    async with running_example("spa_login", scratch) as example, httpx.AsyncClient(base_url=example.url) as client:
        yield Site(example, client)


def problem_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


async def test_a_signed_in_user_reads_and_places_orders(tmp_path: Path) -> None:
    async with site(tmp_path) as shop:
        assert shop.example.shown == f"http://api.localhost:{SHOWN_PORT}/me/orders"
        token = await shop.token("ada")
        before = await shop.api("GET", "/me/orders", token=token, headers={"x-user": "bela"})
        placed = await shop.api("POST", "/me/orders", token=token, json={"what": "bread"}, headers={"x-user": "bela"})
        after = await shop.api("GET", "/me/orders", token=token)
        status = await shop.example.gateway.stop(signal.SIGTERM)

    assert before.json() == {"user": "ada", "orders": [{"id": 1, "what": "dill"}]}
    assert (placed.status_code, placed.json()["what"]) == (201, "bread")
    assert [order["what"] for order in after.json()["orders"]] == ["dill", "bread"]
    assert after.headers["access-control-allow-origin"] == shop.page
    assert after.headers["cache-control"].startswith(("private", "no-cache, private"))
    assert (status, "Traceback" in shop.example.gateway.output) == (0, False)
    logged = (shop.example.logs / "access.jsonl").read_text()
    assert token not in logged
    assert [record["auth.name"] for record in map(json.loads, logged.splitlines()) if "auth.name" in record] == [
        "users"
    ] * 3


async def test_scopes_and_groups_decide_what_a_user_may_do(tmp_path: Path) -> None:
    async with site(tmp_path) as shop:
        bela, grace = await shop.token("bela"), await shop.token("grace")
        own = await shop.api("GET", "/users/bela/orders", token=bela)
        others = await shop.api("GET", "/users/ada/orders", token=bela)
        by_support = await shop.api("GET", "/users/ada/orders", token=grace)
        placing = await shop.api("POST", "/me/orders", token=bela, json={"what": "bread"})

    assert own.json() == {"orders": [{"id": 2, "what": "fennel tea"}]}
    assert problem_of(others) == (403, "forbidden")
    assert by_support.json() == {"orders": [{"id": 1, "what": "dill"}]}
    assert problem_of(placing) == (403, "insufficient-scope")


async def test_only_the_page_that_the_gateway_serves_may_read_its_answers(tmp_path: Path) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    async with site(tmp_path) as shop:
        pages = [await shop.ask("GET", "app.localhost", path) for path in ("/", "/callback", "/page.js", "/page.css")]
        refused = await shop.api("GET", "/me/orders")
        forged = await shop.api("GET", "/me/orders", token="a.b.c")
        preflight = await shop.api("OPTIONS", "/me/orders", headers=asked)
        foreign = await shop.api("GET", "/me/orders", origin="http://evil.example")
        elsewhere = await shop.ask("GET", "evil.example", "/")

    types = [response.headers["content-type"].partition(";")[0] for response in pages]
    assert types == ["text/html", "text/html", "text/javascript", "text/css"]
    rules = [" ".join(rule.split()) for rule in pages[0].headers["content-security-policy"].split(";")]
    allowed = f"connect-src http://api.localhost:{shop.example.port} http://id.localhost:{shop.example.port}"
    assert rules == ["default-src 'self'", "img-src 'self' data:", allowed, "frame-ancestors 'none'"]
    for response in (refused, forged):
        assert problem_of(response) == (401, "unauthorized")
        assert response.headers["access-control-allow-origin"] == shop.page
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    assert "access-control-allow-origin" not in foreign.headers
    assert elsewhere.status_code == 421


async def test_the_provider_takes_a_code_once_and_remembers_who_has_signed_in(tmp_path: Path) -> None:
    async with site(tmp_path) as shop:
        code, cookie = await shop.code("ada", "a verifier")
        wrong = await shop.exchange(code, "another verifier")
        again = await shop.exchange(code, "a verifier")
        query = authorization(shop.page, "a verifier")
        without_asking = await shop.provider("GET", f"/authorize?{query}", headers={"cookie": cookie})
        await shop.provider("GET", "/logout", headers={"cookie": cookie})
        after_logout = await shop.provider("GET", f"/authorize?{query}", headers={"cookie": cookie})
        sign_ins = [await shop.provider("POST", "/login", data={"user": "mallory"}) for _ in range(20)]

    assert [response.json() for response in (wrong, again)] == [{"error": "invalid_grant"}] * 2
    assert (without_asking.status_code, after_logout.status_code) == (302, 200)
    assert [response.status_code for response in sign_ins] == [400] * 19 + [429]
