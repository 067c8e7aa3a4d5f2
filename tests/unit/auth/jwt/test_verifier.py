"""``auth/jwt/verifier.py`` and ``claims.py``: which tokens give an identity, and why others are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import OctKey

from tests.support.auth.tokens import CLAIMS, ISSUER, NOW, FixedKeys, encoded, jwk, key_set, private_key, sign, verifier
from umbel.auth.authenticator import Refusal
from umbel.auth.jwt.key_set import read_key_set
from umbel.auth.jwt.verifier import Verifier
from umbel.core.identity import Identity

EC = private_key("ES256")
OTHER = private_key("ES256", 1)
KEYS = key_set(jwk(EC, kid="a"), algorithms=("ES256",))
HEADER = {"kid": "a"}


def token(**changed: Any) -> str:
    return sign(EC, "ES256", header=HEADER, **changed)


def accepted(text: str, by: Verifier | None = None) -> Identity:
    found = (by or verifier(KEYS, "ES256")).verify(text)
    assert isinstance(found, Identity), found
    return found


def refused(text: str, by: Verifier | None = None) -> Refusal:
    found = (by or verifier(KEYS, "ES256")).verify(text)
    assert isinstance(found, Refusal)
    assert found.reason.isascii()
    assert '"' not in found.reason
    return found


def test_a_token_gives_the_identity_of_its_subject() -> None:
    found = accepted(token(scope="read write"))

    assert (found.kind, found.name, found.sub, found.scopes) == ("jwt", "users", "ada", ("read", "write"))
    assert found.claims == {**CLAIMS, "scope": "read write"}


def test_an_unknown_issuer_is_refused_before_any_key_is_tried() -> None:
    class Untouched(FixedKeys):
        @property
        def key_set(self) -> Any:  # type: ignore[override]
            raise AssertionError

        @key_set.setter
        def key_set(self, value: Any) -> None: ...

    by = verifier({ISSUER: Untouched(None)}, "ES256")

    for issuer in ("https://id.example", "https://evil.example/", None, 1, [ISSUER], {"a": 1}):
        assert refused(token(iss=issuer), by).outcome == "unknown-issuer"


def test_the_keys_of_one_issuer_do_not_verify_tokens_of_another() -> None:
    sources = {
        "https://a/": FixedKeys(key_set(jwk(EC), algorithms=("ES256",))),
        "https://b/": FixedKeys(key_set(jwk(OTHER), algorithms=("ES256",))),
    }
    by = verifier(sources, "ES256")

    assert accepted(sign(EC, "ES256", iss="https://a/"), by).claims["iss"] == "https://a/"
    assert accepted(sign(OTHER, "ES256", iss="https://b/"), by).claims["iss"] == "https://b/"
    assert "signature" in refused(sign(EC, "ES256", iss="https://b/"), by).reason
    assert "signature" in refused(sign(OTHER, "ES256", iss="https://a/"), by).reason


def test_an_unknown_key_id_may_come_with_a_renewal() -> None:
    found = refused(sign(EC, "ES256", header={"kid": "b"}))

    assert (found.outcome, found.keys_may_come, found.unavailable) == ("unknown-key", True, False)


def test_a_wrong_signature_is_no_reason_for_a_renewal() -> None:
    found = refused(sign(OTHER, "ES256", header=HEADER))

    assert (found.outcome, found.keys_may_come) == ("invalid", False)


@pytest.mark.parametrize(("key", "algorithm"), [(OTHER, "ES256"), (private_key("ES384"), "ES384")])
def test_a_token_without_kid_that_no_key_verifies_may_get_its_key(key: Any, algorithm: str) -> None:
    found = refused(sign(key, algorithm), verifier(KEYS, "ES256", "ES384"))

    assert (found.outcome, found.keys_may_come) == ("invalid", True)
    from_file = FixedKeys(KEYS)
    from_file.renewable = False
    assert not refused(sign(key, algorithm), verifier({ISSUER: from_file}, "ES256", "ES384")).keys_may_come


def test_without_keys_the_token_cannot_be_verified_now() -> None:
    found = refused(token(), verifier(None, "ES256"))

    assert (found.outcome, found.unavailable, found.keys_may_come) == ("no-keys", True, True)


def test_a_key_for_another_algorithm_is_not_tried() -> None:
    rsa = private_key("RS256")
    keys = key_set(jwk(EC, kid="a"), jwk(rsa, kid="r", alg="RS384"), algorithms=("ES256", "RS256", "RS384"))
    by = verifier(keys, "ES256", "RS256", "RS384")

    assert "another algorithm" in refused(sign(rsa, "RS256", header={"kid": "r"}), by).reason
    assert "another algorithm" in refused(sign(rsa, "RS256", header={"kid": "a"}), by).reason
    accepted(sign(rsa, "RS384", header={"kid": "r"}), by)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_signed_with_the_public_key_as_secret_is_refused(algorithm: str) -> None:
    key = private_key(algorithm)
    pem = key.as_pem(private=False)
    forged = sign(OctKey(pem, {"kty": "oct", "k": "AAAA"}), "HS256")

    for algorithms in ((algorithm,), (algorithm, "HS256")):
        by = verifier(read_key_set(pem, algorithms, remote=False), *algorithms)
        assert refused(forged, by).outcome == "invalid"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_unsigned_tokens_are_refused(algorithm: str) -> None:
    unsigned = f"{encoded({'alg': algorithm})}.{encoded(dict(CLAIMS))}."

    assert "algorithm" in refused(unsigned).reason


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk(OTHER)},
        {"jwk": jwk(OTHER, kid="a"), "kid": "a"},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["AAAA"]},
        {"x5t": "AAAA", "x5t#S256": "AAAA"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_keys_that_a_token_brings_are_never_used(header: dict[str, Any]) -> None:
    assert "signature" in refused(sign(OTHER, "ES256", header=header)).reason
    # Beside a good signature they change nothing.
    accepted(sign(EC, "ES256", header=header))


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}])
def test_a_signed_token_with_critical_extensions_is_refused(header: dict[str, Any]) -> None:
    assert "critical" in refused(sign(EC, "ES256", header=header)).reason


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [True, False, "1800000300", [], {}, [1]], ids=str)
def test_a_time_that_is_no_number_is_refused(name: str, value: Any) -> None:
    assert f"The claim {name} of the token is not a number." == refused(token(**{name: value})).reason


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 60}, "expired"),
        ({"exp": -(10**30)}, "expired"),
        ({"exp": 0}, "expired"),
        ({"nbf": NOW + 60.5}, "not valid yet"),
        ({"nbf": 10**400}, "not valid yet"),
        ({"iat": NOW + 61}, "future"),
        ({"sub": 7}, "sub"),
        ({"aud": 7}, "aud"),
        ({"aud": ["shop", 7]}, "aud"),
        ({"scope": 7}, "scopes"),
        ({"scp": [7]}, "scopes"),
        ({"scp": {"a": 1}}, "scopes"),
    ],
    ids=str,
)
def test_claims_that_do_not_hold_are_refused(claims: dict[str, Any], reason: str) -> None:
    assert reason in refused(token(**claims)).reason


def test_only_a_token_that_was_good_once_is_called_expired() -> None:
    assert refused(token(exp=NOW - 61)).outcome == "expired"
    assert refused(sign(OTHER, "ES256", exp=NOW - 61)).outcome == "invalid"


@pytest.mark.parametrize(
    "claims",
    [{"exp": NOW - 59.9}, {"exp": 10**400}, {"exp": 1.9e9}, {"nbf": NOW + 60}, {"iat": NOW + 60}, {"iat": -1}],
    ids=str,
)
def test_times_within_the_leeway_are_accepted(claims: dict[str, Any]) -> None:
    accepted(token(**claims))


def test_the_leeway_is_that_of_the_configuration() -> None:
    by = verifier(KEYS, "ES256", leeway=0.0)

    accepted(token(exp=NOW + 0.5), by)
    assert "expired" in refused(token(exp=NOW), by).reason
    assert "yet" in refused(token(nbf=NOW + 0.5), by).reason


@pytest.mark.parametrize("aud", ["shop", ["other", "shop"], ["shop"]], ids=str)
def test_one_of_several_audiences_is_enough(aud: Any) -> None:
    accepted(token(aud=aud), verifier(KEYS, "ES256", audience=("desk", "shop")))


@pytest.mark.parametrize("aud", ["Shop", "shop ", [], ["other"], None, "sho", ""], ids=str)
def test_another_audience_or_none_is_refused(aud: Any) -> None:
    assert "audience" in refused(token(aud=aud), verifier(KEYS, "ES256", audience=("shop",))).reason


def test_without_configured_audience_any_is_accepted() -> None:
    accepted(token(aud="other"))
    accepted(token(aud=None))


@pytest.mark.parametrize("name", ["exp", "sub", "tenant"])
def test_a_required_claim_must_be_there_and_not_null(name: str) -> None:
    by = verifier(KEYS, "ES256", required=("exp", "sub", "tenant"))
    good = {**CLAIMS, "tenant": 0}

    accepted(sign(EC, "ES256", good), by)
    for claims in ({**good, name: None}, {key: value for key, value in good.items() if key != name}):
        text = sign(EC, "ES256", encoded_object(claims))
        assert refused(text, by).reason == f"The token has not every claim that is required ({name})."


def encoded_object(claims: dict[str, Any]) -> bytes:
    """The claims as JSON, null included, which ``sign`` leaves out."""
    return json.dumps(claims).encode()


def test_a_token_without_optional_claims_has_no_subject_and_never_expires() -> None:
    found = accepted(token(exp=None, sub=None, iat=None), verifier(KEYS, "ES256", required=()))

    assert (found.sub, found.scopes) == (None, ())


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b a"}, ("a", "b")),
        ({"scope": "  a   b "}, ("a", "b")),
        ({"scope": ["b", "a"]}, ("b", "a")),
        ({"scp": "a b"}, ("a", "b")),
        ({"scp": ["b", "a", "b"]}, ("b", "a")),
        ({"scope": "a b", "scp": ["c", "a"]}, ("a", "b", "c")),
        ({"scope": ""}, ()),
        ({"scope": []}, ()),
        ({"scope": "a\tb"}, ("a\tb",)),
    ],
    ids=str,
)
def test_scopes_are_those_of_scope_and_scp_each_once(claims: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert accepted(token(**claims)).scopes == scopes


def test_nothing_of_a_token_is_in_a_refusal() -> None:
    for text in (token(exp=1), token(aud="secret-audience"), sign(EC, "ES256", iss="https://secret.example")):
        for by in (verifier(KEYS, "ES256", audience=("shop",)), verifier(None, "ES256")):
            assert "secret" not in str(refused(text, by))
            assert text[:20] not in str(refused(text, by))


def test_a_verified_token_is_remembered_and_a_refused_one_is_not() -> None:
    by = verifier(KEYS, "ES256", cache_max=10)

    text = token()
    assert accepted(text, by) is accepted(text, by)
    accepted(token(), by)  # ECDSA draws a new number, so this is another token.
    refused(token(exp=1), by)

    assert (len(by.cache), by.hits, by.misses) == (2, 1, 3)


def test_a_remembered_token_is_refused_after_its_expiry() -> None:
    times = [NOW]
    by = verifier(KEYS, "ES256", cache_max=10, wall=lambda: times[0])
    text = token(exp=NOW + 30)
    accepted(text, by)

    times[0] = NOW + 89.9
    accepted(text, by)
    assert by.hits == 1
    times[0] = NOW + 90.0
    assert refused(text, by).outcome == "expired"


@pytest.mark.parametrize("wall_step", [0.0, -3600.0, 60.0])
def test_a_token_is_verified_again_after_a_minute_of_the_monotonic_clock(wall_step: float) -> None:
    times = [NOW, 0.0]
    by = verifier(KEYS, "ES256", cache_max=10, wall=lambda: times[0], clock=lambda: times[1])
    text = token(iat=None)
    accepted(text, by)

    times[:] = [NOW + wall_step, 59.9]
    accepted(text, by)
    times[1] = 60.0
    accepted(text, by)

    assert (by.hits, by.misses) == (1, 2)


def test_a_remembered_token_is_refused_when_its_key_is_gone_or_all_are() -> None:
    source = FixedKeys(KEYS)
    by = verifier({ISSUER: source}, "ES256", cache_max=10)
    text = token()
    accepted(text, by)

    source.key_set = key_set(jwk(OTHER, kid="b"), algorithms=("ES256",))
    assert refused(text, by).outcome == "unknown-key"
    source.key_set = None
    assert refused(text, by).unavailable
    source.key_set = KEYS
    accepted(text, by)
    assert by.hits == 0


def test_a_token_of_one_section_does_not_open_another() -> None:
    text = token()
    one = verifier(KEYS, "ES256", cache_max=10, name="one", audience=("shop",))
    two = verifier(KEYS, "ES256", cache_max=10, name="two", audience=("desk",))
    three = verifier(key_set(jwk(OTHER, kid="a"), algorithms=("ES256",)), "ES256", cache_max=10, name="three")

    assert accepted(text, one).name == "one"
    assert "audience" in refused(text, two).reason
    assert "signature" in refused(text, three).reason


def test_the_issuer_of_an_unverified_token_is_one_of_the_accepted_ones_or_none() -> None:
    by = verifier(KEYS, "ES256")

    assert by.issuer_of(sign(OTHER, "ES256")) == ISSUER
    assert by.issuer_of(token(iss="https://evil.example/")) is None
    assert by.issuer_of("x") is None
