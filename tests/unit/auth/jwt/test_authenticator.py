"""``auth/jwt/authenticator.py``: the authenticator of a section, from its keys to identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.auth.providers import FIRST, SECOND, Provider
from tests.support.auth.tokens import ISSUER, NOW, bearer, jwk, jwks, private_key, sign
from tests.support.logs.records import Records
from umbel.auth.authenticator import Authenticator, Place, Presented, Refusal
from umbel.auth.config_error import AuthConfigError
from umbel.auth.jwt import authenticator as module
from umbel.auth.jwt.authenticator import JwtAuthenticator, problems
from umbel.config.schema.access.auth import JwtAuth
from umbel.core.identity import Identity

EC, OTHER = private_key("ES256"), private_key("ES256", 1)
REMOTE = {"iss": ISSUER, "jwks": {"upstream": "id", "path": "/jwks.json"}}


def section(*issuers: dict[str, Any], **keys: Any) -> JwtAuth:
    return JwtAuth.model_validate({"kind": "jwt", "algorithms": ["ES256"], "issuers": list(issuers), **keys})


def made(*issuers: dict[str, Any], name: str = "users", **keys: Any) -> JwtAuthenticator:
    return JwtAuthenticator(name, section(*issuers, **keys), wall=lambda: NOW, clock=lambda: 0.0)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "keys.pem"
    path.write_bytes(EC.as_pem(private=False))
    return str(path)


def of_file(path: str, **keys: Any) -> JwtAuthenticator:
    return made({"iss": ISSUER, "keys": path}, **keys)


def test_a_token_of_a_file_s_key_gives_an_identity(key_file: str) -> None:
    users: Authenticator = of_file(key_file)

    found = users.authenticate(bearer(sign(EC, "ES256")))

    assert isinstance(found, Identity)
    assert (found.kind, found.name, found.sub) == ("jwt", "users", "ada")
    assert (users.kind, users.name, users.places) == ("jwt", "users", (Place("header", "authorization"),))


def test_a_request_without_token_is_neither_accepted_nor_refused(key_file: str) -> None:
    presented = Presented({"authorization": "Basic YTpi"}, {}, b"")

    assert of_file(key_file).authenticate(presented) is None
    assert of_file(key_file).used(presented) is None


def test_the_place_that_is_used_is_known(key_file: str) -> None:
    users = of_file(key_file, **{"from": ["cookie:session", "header"]})
    token = sign(EC, "ES256")

    assert users.used(bearer(token)) == Place("header", "authorization")
    in_both = Presented({"authorization": f"Bearer {token}"}, {"session": "x"}, b"")
    assert users.used(in_both) == Place("cookie", "session")
    assert isinstance(users.authenticate(in_both), Refusal)
    assert isinstance(users.authenticate(Presented({}, {"session": token}, b"")), Identity)


def test_the_challenge_follows_rfc_6750(key_file: str) -> None:
    users = of_file(key_file)

    assert users.challenge(None) == 'Bearer realm="users"'
    refusal = users.authenticate(bearer("x"))
    assert isinstance(refusal, Refusal)
    assert users.challenge(refusal) == (
        'Bearer realm="users", error="invalid_token",'
        ' error_description="The token has not the three parts of a signed token."'
    )
    twice = users.authenticate(Presented({"authorization": "Bearer a, Bearer b"}, {}, b""))
    assert isinstance(twice, Refusal)
    assert 'error="invalid_request"' in users.challenge(twice)
    assert users.challenge(Refusal('a"b\\c\r\n\xe9')).endswith('error_description="abc"')


def test_one_section_does_not_accept_the_token_of_another(key_file: str, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(OTHER.as_pem(private=False))
    first = of_file(key_file, name="first")
    others = [
        of_file(str(tmp_path / "other.pem"), name="second"),
        made({"iss": "https://other.example/", "keys": key_file}, name="third"),
        made({"iss": ISSUER, "keys": key_file, "audience": ["desk"]}, name="fourth"),
    ]
    presented = bearer(sign(EC, "ES256"))

    assert isinstance(first.authenticate(presented), Identity)
    for other in others:
        assert isinstance(other.authenticate(presented), Refusal)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there is no such file"), (b"", "neither"), (EC.as_pem(private=True), "private key")],
    ids=["missing", "empty", "private"],
)
def test_a_file_without_usable_keys_is_a_mistake(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "keys.pem"
    if content is not None:
        path.write_bytes(content)
    issuer = {"iss": ISSUER, "keys": str(path)}

    ((place, found),) = problems(section(issuer))
    with pytest.raises(AuthConfigError) as raised:
        made(issuer)

    assert place == raised.value.key == ("issuers", 0, "keys")
    assert reason in found
    assert found == raised.value.reason


def test_each_key_of_a_file_that_is_left_out_is_a_mistake_of_check_only(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(jwk(EC), {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "x"}))
    issuer = {"iss": ISSUER, "keys": str(path)}

    found = [reason for _, reason in problems(section(issuer))]

    assert len(found) == 2
    assert "fits none" in found[0] or "bits" in found[0]
    assert made(issuer).statistics().issuers[0].keys == 1


def test_a_usable_section_has_no_mistakes(key_file: str) -> None:
    assert list(problems(section({"iss": ISSUER, "keys": key_file}, {**REMOTE, "iss": "https://b.example/"}))) == []


def test_discovery_needs_an_issuer_that_is_a_url() -> None:
    issuer = {"iss": "accounts", "jwks": {"upstream": "id", "discovery": True}}

    ((place, reason),) = problems(section(issuer))

    assert place == ("issuers", 0, "iss")
    assert "discovery needs" in reason
    with pytest.raises(AuthConfigError, match="discovery needs"):
        made(issuer)


def test_a_missing_library_is_a_mistake_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_installed", lambda module: False)

    ((place, reason),) = problems(section(REMOTE))

    assert place == ("kind",)
    assert "pip install 'umbel[auth]'" in reason
    with pytest.raises(AuthConfigError, match="umbel"):
        made(REMOTE)


async def test_keys_come_from_the_upstream_and_a_new_one_by_a_renewal(autojump_clock: trio.abc.Clock) -> None:
    records, provider = Records(), Provider()
    users = JwtAuthenticator("users", section(REMOTE), recorder=records, wall=lambda: NOW)
    known, rotated = (bearer(sign(key, "ES256", header={"kid": kid})) for key, kid in ((EC, "a"), (OTHER, "b")))

    before = users.authenticate(known)
    assert isinstance(before, Refusal)
    assert (before.unavailable, before.keys_may_come, users.is_ready) == (True, True, False)
    assert await users.renew_keys(known) is False
    assert users.upstreams == {"id"}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(users.run, {"id": provider})
        await users.wait_for_first_keys()
        assert users.is_ready
        assert isinstance(users.authenticate(known), Identity)

        provider.answer = SECOND
        await trio.sleep(31)
        unknown = users.authenticate(rotated)
        assert isinstance(unknown, Refusal)
        assert unknown.keys_may_come
        assert await users.renew_keys(rotated) is True
        assert isinstance(users.authenticate(rotated), Identity)
        nursery.cancel_scope.cancel()

    assert provider.paths == ["/jwks.json"] * 2
    assert users.statistics().issuers[0].generation == 2


async def test_tokens_that_name_no_issuer_with_a_key_set_renew_nothing(
    key_file: str, autojump_clock: trio.abc.Clock
) -> None:
    provider = Provider()
    issuers = (REMOTE, {"iss": "https://file.example/", "keys": key_file})
    users = JwtAuthenticator("users", section(*issuers), wall=lambda: NOW)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(users.run, {"id": provider})
        await users.wait_for_first_keys()
        await trio.sleep(100)
        for presented in (
            bearer(sign(EC, "ES256", iss="https://file.example/")),
            bearer(sign(EC, "ES256", iss="https://evil.example/")),
            bearer("x"),
            Presented({"authorization": "Bearer a, Bearer b"}, {}, b""),
            Presented({}, {}, b""),
        ):
            assert await users.renew_keys(presented) is False
        nursery.cancel_scope.cancel()

    assert len(provider.paths) == 1


async def test_tokens_are_unavailable_while_the_provider_is_away_for_too_long(
    autojump_clock: trio.abc.Clock,
) -> None:
    provider = Provider()
    keys = section(REMOTE, refresh="1m", stale_if_error="5m")
    users = JwtAuthenticator("users", keys, wall=lambda: NOW)
    presented = bearer(sign(EC, "ES256", header={"kid": "a"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(users.run, {"id": provider})
        await users.wait_for_first_keys()
        provider.answer = RuntimeError("away")
        await trio.sleep(300)
        assert isinstance(users.authenticate(presented), Identity)
        await trio.sleep(100)
        away = users.authenticate(presented)
        assert isinstance(away, Refusal)
        assert (away.outcome, away.unavailable) == ("no-keys", True)
        provider.answer = FIRST
        await trio.sleep(61)
        assert isinstance(users.authenticate(presented), Identity)
        nursery.cancel_scope.cancel()


def test_readiness_does_not_wait_where_the_configuration_says_so(key_file: str) -> None:
    assert not made(REMOTE).is_ready
    assert made(REMOTE, ready_without_keys=True).is_ready
    assert of_file(key_file).is_ready


async def test_a_section_of_files_runs_no_task(key_file: str) -> None:
    users = of_file(key_file)

    await users.run({})
    await users.wait_for_first_keys()


def test_the_snapshot_counts_tokens_and_holds_no_secret(tmp_path: Path) -> None:
    secret = private_key("HS256")
    path = tmp_path / "secret.json"
    path.write_bytes(jwks(jwk(secret)))
    users = made({"iss": ISSUER, "keys": str(path)}, algorithms=["HS256"])
    presented = bearer(sign(secret, "HS256"))
    for _ in range(3):
        users.authenticate(presented)
    users.authenticate(bearer("x"))

    found = users.statistics()

    assert (found.name, found.cached, found.cache_hits, found.cache_misses) == ("users", 1, 2, 2)
    assert found.cached_bytes > 0
    assert found.issuers[0].source == str(path)
    assert jwk(secret)["k"] not in repr(found)
    assert json.dumps(found.issuers[0].left_out) == "[]"
