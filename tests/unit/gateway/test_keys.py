"""Keys of a gateway as operators see them: readiness, statistics and metrics."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.auth.tokens import ISSUER, jwk, jwks, private_key, sign
from tests.support.server.asgi import LifespanFailedError, ask, living
from tests.unit.gateway.gateways import gateway, says
from umbel.auth.first_keys import WAIT_S_MAX
from umbel.gateway.operation.admin import GatewayView
from umbel.observe.figures import add

KEYS = jwks(jwk(private_key("ES256"), kid="one"))
USERS = {
    "kind": "jwt",
    "algorithms": ("ES256",),
    "issuers": ({"iss": ISSUER, "jwks": {"upstream": "id", "path": "/k"}},),
}
ROUTE = {"path": "/r", "auth": "users", "calls": {"part": {"upstream": "up", "path": "/"}}}


class Provider:
    """Upstream that has the key set unless it is failing."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.keys = KEYS
        self.fetches = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        return httpx.Response(500) if self.failing else httpx.Response(200, content=self.keys)


def application(provider: Provider, supervisor: dict[str, Any] | None = None, **auth: Any) -> Any:
    sections = {"auth": {"users": USERS, **auth}, "supervisor": supervisor or {}}
    app, _ = gateway(ROUTE, sections=sections, up=says({}), id=provider)
    return app


def token(expires_in: float = 300.0) -> str:
    return sign(private_key("ES256"), "ES256", header={"kid": "one"}, exp=time.time() + expires_in, iat=None)


def figures(app: Any) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    add(sums, app.figures()[0])
    return sums


async def test_startup_waits_for_the_first_keys_and_the_worker_is_ready_then(
    autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = Provider()
    app = application(provider)
    started = trio.current_time()
    async with living(app):
        assert trio.current_time() - started < WAIT_S_MAX
        assert provider.fetches == 1
        assert (await ask(app, target="/readyz")).status == 200
        assert capsys.readouterr().err == ""


async def test_a_worker_whose_keys_do_not_come_serves_and_is_ready_when_they_have(
    autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = Provider(failing=True)
    app = application(provider)
    started = trio.current_time()
    async with living(app):
        assert trio.current_time() - started == pytest.approx(WAIT_S_MAX)
        assert capsys.readouterr().err == (
            f"warning: the keys of {ISSUER} for [auth.users] have not come yet: the upstream id answered 500; requests"
            " with its tokens get 503 until they have\n"
        )
        assert (await ask(app, target="/readyz")).status == 503
        assert GatewayView(app).readiness() == (False, GatewayView(app).readiness()[1] | {"state": "waiting for keys"})
        assert (await ask(app, target="/livez")).status == 200
        refused = await ask(app, target="/r", headers=[("authorization", f"Bearer {token()}")])
        assert refused.status == 503
        provider.failing = False
        await trio.sleep(60)
        assert (await ask(app, target="/readyz")).status == 200


async def test_the_wait_for_the_first_keys_takes_at_most_half_of_start_timeout(autojump_clock: object) -> None:
    app = application(Provider(failing=True), supervisor={"start_timeout": "6s"})
    started = trio.current_time()
    async with living(app):
        assert trio.current_time() - started == pytest.approx(3)


async def test_a_startup_fails_without_the_keys_that_it_needs(autojump_clock: object) -> None:
    app = application(Provider(failing=True))
    app.require_keys(())
    sentence = f"the keys of {ISSUER} for [auth.users] have not come yet: the upstream id answered 500"
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match=re.escape(sentence))):
        async with living(app):
            pass
    assert str(app.keys_error) == sentence
    assert trio.current_time() == pytest.approx(WAIT_S_MAX)


async def test_a_fetch_that_hangs_is_named_where_a_startup_needs_its_keys(autojump_clock: object) -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    app, _ = gateway(
        ROUTE, sections={"auth": {"users": USERS}, "supervisor": {"start_timeout": "6s"}}, up=says({}), id=hang
    )
    app.require_keys(())
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="the first fetch has not ended")):
        async with living(app):
            pass


@pytest.mark.parametrize("lifted", ["before", "while it waits", "by ready_without_keys"])
async def test_a_startup_succeeds_without_keys_that_it_may_lack(lifted: str, autojump_clock: object) -> None:
    users = {**USERS, "ready_without_keys": lifted == "by ready_without_keys"}
    app = application(Provider(failing=True), users=users)
    missing = f"{ISSUER} for [auth.users]"
    app.require_keys([missing] if lifted == "before" else ())
    async with trio.open_nursery() as nursery:

        async def lift() -> None:
            await trio.sleep(WAIT_S_MAX / 2)
            app.require_keys(None)

        if lifted == "while it waits":
            nursery.start_soon(lift)
        async with living(app):
            assert app.missing_keys == (() if users["ready_without_keys"] else (missing,))
            assert (await ask(app, target="/livez")).status == 200
    assert app.keys_error is None


async def test_ready_without_keys_neither_waits_nor_makes_the_worker_unready(autojump_clock: object) -> None:
    provider = Provider(failing=True)
    app = application(provider, users={**USERS, "ready_without_keys": True})
    started = trio.current_time()
    async with living(app):
        assert trio.current_time() == started
        assert (await ask(app, target="/readyz")).status == 200


async def test_keys_that_fail_later_leave_the_worker_ready(autojump_clock: object) -> None:
    provider = Provider()
    app = application(provider)
    async with living(app):
        provider.failing = True
        await trio.sleep(10_000)
        assert app.statistics().auth[0].state == "none"
        assert (await ask(app, target="/readyz")).status == 200


async def test_a_rotation_of_keys_without_kid_is_noticed_at_the_first_token(autojump_clock: object) -> None:
    provider = Provider()
    first, second = private_key("ES256"), private_key("ES256", 1)
    provider.keys = jwks(jwk(first))
    app = application(provider)

    def signed(key: Any) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {sign(key, 'ES256', exp=time.time() + 300, iat=None)}")]

    async with living(app):
        await trio.sleep(31)
        assert (await ask(app, target="/r", headers=signed(first))).status == 200
        provider.keys = jwks(jwk(second))
        assert (await ask(app, target="/r", headers=signed(second))).status == 200
        assert (await ask(app, target="/r", headers=signed(first))).status == 401
        assert provider.fetches == 2


async def test_forged_tokens_without_kid_cause_one_fetch_per_cool_down(autojump_clock: object) -> None:
    provider = Provider()
    app = application(provider)
    forged = sign(private_key("ES256", 1), "ES256", exp=time.time() + 300, iat=None)
    statuses = set()

    async def send(number: int) -> None:
        await trio.sleep(number / 10)
        statuses.add((await ask(app, target="/r", headers=[("authorization", f"Bearer {forged}")])).status)

    async with living(app), trio.open_nursery() as nursery:
        for number in range(1000):  # Within 100 s; the cool-down is 30 s.
            nursery.start_soon(send, number)
    assert statuses == {401}
    assert provider.fetches == 1 + 3


async def test_statistics_and_metrics_show_keys_fetches_and_outcomes(tmp_path: Path, autojump_clock: object) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[[keys]]\nid = "acme"\nsha256 = "{hashlib.sha256(b"hunter2").hexdigest()}"\n')
    app = application(Provider(), partners={"kind": "api-key", "file": str(file)})
    async with living(app):
        for credential in (valid := token(), valid, token(-300.0), "no.token.here"):
            await ask(app, target="/r", headers=[("authorization", f"Bearer {credential}")])
        await ask(app, target="/r")
        users, partners = app.statistics().auth
        counted = figures(app)

    assert (users.name, users.kind, users.state, users.cached_tokens) == ("users", "jwt", "ok", 1)
    keys = users.sources[0]
    assert (keys.issuer, keys.source, keys.keys, keys.fetches, keys.failures) == (ISSUER, "upstream id /k", 1, 1, 0)
    assert (partners.kind, partners.state, partners.sources[0].source, partners.sources[0].keys) == (
        *("api-key", "ok"),
        *(str(file), 1),
    )
    assert json.dumps([asdict(users), asdict(partners)])  # Plain data, as /status sends it.
    requests = {labels: count for labels, count in counted["umbel_auth_requests_total"].items() if count}
    assert requests == {
        ("jwt", "admitted"): 2,
        ("jwt", "expired"): 1,
        ("jwt", "invalid"): 1,
        ("none", "missing"): 1,
    }
    assert counted["umbel_auth_requests_total"]["api-key", "unknown-key"] == 0
    assert counted["umbel_auth_keys"] == {("users", ISSUER): 1, ("partners", ""): 1}
    assert counted["umbel_auth_key_fetches_total"] == {("users", ISSUER, "ok"): 1, ("users", ISSUER, "failed"): 0}
    assert counted["umbel_auth_cached_tokens"] == {("users",): 1}
    assert counted["umbel_auth_keys_age_seconds"].keys() == {("users", ISSUER), ("partners", "")}


async def test_fetches_that_succeeded_are_never_counted_less_while_one_is_under_way(autojump_clock: object) -> None:
    provider = Provider()
    app = application(provider)
    async with living(app):
        before = figures(app)["umbel_auth_key_fetches_total"]["users", ISSUER, "ok"]
        provider.failing = True
        seen = []
        for _ in range(1000):
            await trio.sleep(1)
            seen.append(figures(app)["umbel_auth_key_fetches_total"]["users", ISSUER, "ok"])
    assert set(seen) == {before}


async def test_an_application_without_auth_has_no_values_about_it() -> None:
    app, _ = gateway()
    async with living(app):
        assert not any(figures(app).get(name) for name in ("umbel_auth_requests_total", "umbel_auth_keys"))
        assert app.statistics().auth == ()
